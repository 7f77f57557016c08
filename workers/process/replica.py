"""Pickles the user's Sequence, once for all workers, into a parcel: shared memory that also holds its large arrays.

cloudpickle pickles the Sequence. Whatever ``__main__`` or a notebook defines is pickled by value. The bytes of large
arrays are kept out of the pickle: they follow it, aligned, in the same piece of shared memory, and very large arrays
have pieces of their own. Each worker loads its replica (its own copy of the Sequence) from the parcel. It maps the
pieces read-only, or copy-on-write if they hold torch storages, so any number of workers share one copy of the arrays.
A ``np.memmap`` is sent as the name of its file, which each worker opens again.
"""

from __future__ import annotations

import io
import os
import pickle
import types
from typing import Any, NamedTuple

import numpy as np

from workers import frameworks
from workers.batch import share, shared_memory
from workers.batch.pickling import Pickler as PicklerByValue
from workers.batch.share import Found, Piece
from workers.batch.shared_memory import address_of
from workers.batch.tree import ALIGNMENT
from workers.errors import NotPicklableError
from workers.frameworks.keras import is_keras_dataset, plain_dataset
from workers.job import process_generators
from workers.job.walk import Cached

from . import arrays, by_value, inheritance, memmap, tensors
from .arrays import SHARED_NBYTES
from .by_value import learn, of_file, texts_of
from .main_module import Definitions
from .unpicklable import find_unpicklable, left_out, shown

# Buffers of at least this size get a piece each, which all front-ends share; not too many, as each costs a descriptor.
_OWN_PIECE_NBYTES = 8 << 20
_MAX_OWN_PIECES = 100


_BY_NAME = type, types.FunctionType, types.BuiltinFunctionType, np.ufunc, Cached


class ReplicaPickler(PicklerByValue):
    """The pickler of objects that are sent to the workers, above all the sequence.

    It keeps large arrays out of the pickle, and replaces a memmap by the name of its file. Code that workers cannot
    import is pickled by value.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.modules: set[str] = set()  # the names of modules that a worker imports to unpickle the object
        self.files: set[memmap.MappedFile] = set()  # the files of memmaps, which workers will map
        self.compiled: set[str] = set()  # the source files of code that is sent by value, e.g. {"/tmp/x/456.py"}
        self.states: dict[int, dict[str, Any]] = {}  # {id of an object: {attribute: the value to send instead}}
        self.storages = tensors.Storages()
        self.definitions = Definitions()  # the objects that are pickled by value
        self._plain: set[type] = set()  # classes whose objects are pickled in the default way
        self._may_be_names: dict[type, bool] = {}  # {class: whether pickle may send its objects as mere names}

    def reducer_override(self, obj: Any) -> Any:
        if self.states and id(obj) in self.states:
            return _with_state(obj, self.states[id(obj)])
        if type(obj) in self._plain:
            return NotImplemented
        if obj is self.definitions:
            return obj.reduced()
        if isinstance(obj, np.ndarray) and obj.nbytes >= SHARED_NBYTES and not obj.dtype.hasobject:
            again = memmap.reopened(obj)
            if again is not None:
                self.files.add(again.file())
                return memmap.open_memmap, tuple(again)
            if isinstance(obj, np.memmap):  # e.g. of mode "c", whose changes are in no file
                obj = np.asarray(obj)
        if (reduction := arrays.reduced(obj)) is not None:
            return reduction
        if (of_tensor := self.storages.reduced(obj)) is not None:
            reduction, package = of_tensor
            self.modules.add(package)
            return reduction
        if (reduction := inheritance.reduced(obj)) is not None:
            return reduction
        if (reduction := process_generators.reduced(obj)) is not None:
            return reduction
        if isinstance(obj, type) and is_keras_dataset(obj):
            return plain_dataset, ()
        if isinstance(obj, types.CodeType):  # cloudpickle would leave out the name of its file
            self.compiled.add(obj.co_filename)
            return of_file, (obj.co_filename, *self.dispatch_table[types.CodeType](obj))
        if (reduction := frameworks.first_answer("reduced_function", obj)) is not None:
            return reduction
        if isinstance(obj, types.ModuleType):
            by_value.look_at(obj.__name__)
        elif isinstance(obj, (type, types.FunctionType, Cached)):
            by_value.look_at(obj.__module__)
        reduction = super().reducer_override(obj)
        if isinstance(obj, types.ModuleType):
            self.modules.add(obj.__name__)
        elif reduction is NotImplemented and isinstance(obj, _BY_NAME):
            self.modules.add(getattr(obj, "__module__", None) or "builtins")
        elif isinstance(obj, (type, types.FunctionType, Cached)):
            self.definitions.add(obj, getattr(obj, "__qualname__", ""))
        elif reduction is NotImplemented and type(obj) not in self.dispatch_table:
            return self._reduced_by_its_class(obj)
        return reduction

    def _reduced_by_its_class(self, obj: Any) -> Any:
        kind = type(obj)
        if kind not in self._may_be_names:
            self._may_be_names[kind] = by_value.may_be_sent_by_name(kind)
            if not by_value.reduces_itself(kind):
                self._plain.add(kind)
        return by_value.reduced(obj, self.definitions) if self._may_be_names[kind] else NotImplemented


class _Absent:
    """The type of :data:`ABSENT`."""


#: Stands in for the value of an attribute that is not sent to the workers at all.
ABSENT = _Absent()


def _with_state(obj: Any, changed: dict[str, Any]) -> Any:
    make, arguments, state, *rest = obj.__reduce_ex__(5)
    state = {name: changed.get(name, value) for name, value in state.items()}
    return make, arguments, {name: value for name, value in state.items() if value is not ABSENT}, *rest


class Pickled:
    """An object pickled for the workers. ``buffers`` holds views of its large arrays, which are not in the pickle."""

    def __init__(self, value: Any, name: str = "the Sequence", states: dict[int, dict[str, Any]] | None = None) -> None:
        """Pickle ``value``. ``states``: {id of an object in ``value``: {attribute: the value to pickle instead}}.

        Raises:
            NotPicklableError: a part of ``value`` is unpicklable. The error names its path, which starts with ``name``.
        """
        self.buffers: list[memoryview]
        self.of_tensors: list[bool]  # for each buffer, whether it is the memory of torch tensors

        def keep_out(buffer: pickle.PickleBuffer) -> bool:
            view = buffer.raw()
            if view.nbytes < SHARED_NBYTES and share.find_bytes(address_of(view), view.nbytes) is None:
                return True
            self.buffers.append(view)
            self.of_tensors.append(tensors.is_of_storage(view.obj))
            return False

        def dump(parts: dict[int, Any]) -> ReplicaPickler:
            file = io.BytesIO()
            self.buffers, self.of_tensors = [], []
            pickler = ReplicaPickler(file, protocol=5, buffer_callback=keep_out)
            pickler.states, pickler.storages = states or {}, tensors.Storages(parts)
            pickler.dump((value, pickler.definitions))
            self.pickle = file.getvalue()
            return pickler

        try:
            pickler = dump({})
            if parts := pickler.storages.parts():
                pickler = dump(parts)
        except Exception as error:  # a user's __reduce__ may raise anything
            path, of, advice = find_unpicklable(value, name, is_picklable)
            advice = advice or (
                "Create or open it in the worker at first use (in get_examples or the augmenter, if it is None), and "
                "leave it out of what is sent: "
                f"{left_out(value, path, name)}"
            )
            raise NotPicklableError(
                f"{shown(path)} cannot be sent to worker processes: {type(error).__name__}: {error}. "
                f"It is a {of}. {shown(advice)}. "
                'Or use executor="thread" or nb_workers=0.'
            ) from error
        self.modules = pickler.modules
        self.files = pickler.files
        self.texts = texts_of(pickler.compiled)


class Part(NamedTuple):
    """The position of a pickle, or of an array's bytes, in a parcel: Part(piece=0, start=4096, nbytes=65536)."""

    piece: int  # the index of the piece of shared memory
    start: int  # in bytes from the beginning of the piece
    nbytes: int


class ParcelMessage(NamedTuple):
    """The description of a parcel (a pickled object in shared memory), sent to a worker with the descriptors."""

    table: list[Part]  # the position of the pickle, then of each buffer
    lengths: list[int]  # of the pieces of shared memory, in bytes
    texts: dict[str, str]  # {name: source text} of code that is in no file: see ``by_value``
    private: list[bool]  # for each piece, whether workers map it copy-on-write


class Comparison(NamedTuple):
    """The result of :meth:`Parcel.compare`: whether an object that was pickled again equals the one in the parcel."""

    is_same: bool  # True if the objects are equal as a whole
    same: list[bool]  # for each buffer of the new pickle, whether the parcel has an equal one


class Parcel:
    """A pickled object in shared memory, for the workers to load.

    Args:
        before: an earlier parcel of the object. Unchanged buffers (bytes of large arrays) are taken over, not copied.
        same: for each buffer of ``pickled``, whether it is unchanged since ``before``; None if this is unknown.

    Attributes:
        table: the position of the pickle, then of each buffer.
        pieces: the pieces of shared memory that hold the pickle and the buffers.
        files: the files of memmaps, which the workers map.
        changed: what differs from the workers' present parcel (see ``changed_attributes``); None if anything may.
    """

    changed: Any = None

    def __init__(self, pickled: Pickled, before: Parcel | None = None, same: list[bool] | None = None) -> None:
        self.pickle = pickled.pickle
        self.files = pickled.files
        self._texts = pickled.texts
        self.pieces: list[Piece] = []
        self._numbers: dict[int, int] = {}  # {id of a piece: its index in pieces}
        self._private: set[int] = set()  # the ids of pieces with torch tensors, to which jobs may write
        shared = [share.find_bytes(address_of(buffer), buffer.nbytes) for buffer in pickled.buffers]
        places: dict[int, Found] = {}  # {index of a buffer: its position in shared memory}
        others: set[int] = set()  # the ids of pieces used here that are not from workers.share()
        end, starts = len(pickled.pickle), {}
        for at, buffer in enumerate(pickled.buffers):
            found = shared[at]
            if found is None and before is not None and same and same[at]:
                number, start, _ = before.table[at + 1]
                piece = before.pieces[number]
                if id(piece) in others or len(others) < _MAX_OWN_PIECES:
                    found = Found(piece, start)
                    others.add(id(piece))
            if found is None and buffer.nbytes >= _OWN_PIECE_NBYTES and len(others) < _MAX_OWN_PIECES:
                found = Found(share.copy_of(buffer, address_of(buffer)), 0)
                others.add(id(found.piece))
            if found is not None:
                places[at] = found
            else:
                starts[at] = -(-end // ALIGNMENT) * ALIGNMENT
                end = starts[at] + buffer.nbytes
        piece = Piece(end)
        piece.bytes[: len(pickled.pickle)] = pickled.pickle
        self.table: list[Part] = [self._part(Found(piece, 0), len(pickled.pickle))]
        for at, buffer in enumerate(pickled.buffers):
            if at in starts:
                start = starts[at]
                np.frombuffer(piece.bytes, np.uint8, buffer.nbytes, start)[:] = np.frombuffer(buffer, np.uint8)
                places[at] = Found(piece, start)
            self.table.append(self._part(places[at], buffer.nbytes))
            if pickled.of_tensors[at] and shared[at] is None:
                self._private.add(id(places[at].piece))

    def _part(self, found: Found, nbytes: int) -> Part:
        number = self._numbers.setdefault(id(found.piece), len(self.pieces))
        if number == len(self.pieces):
            self.pieces.append(found.piece)
        return Part(number, found.start, nbytes)

    def compare(self, pickled: Pickled) -> Comparison:
        """Compare ``pickled`` with the object in this parcel, as a whole and for each buffer (large array).

        Arrays made by ``workers.share`` are compared only by position, as workers see all writes to them anyway.
        """
        same = []
        for at, buffer in enumerate(pickled.buffers):
            if at + 1 >= len(self.table) or self.table[at + 1].nbytes != buffer.nbytes:
                same.append(False)
                continue
            piece, start, nbytes = self.table[at + 1]
            shared = share.find_bytes(address_of(buffer), buffer.nbytes)
            if shared is not None:
                same.append(shared.piece is self.pieces[piece] and shared.start == start)
            else:
                there = np.frombuffer(self.pieces[piece].bytes, np.uint8, nbytes, start)
                same.append(shared_memory.is_equal(np.frombuffer(buffer, np.uint8), there))
        is_same = self.pickle == pickled.pickle and len(same) + 1 == len(self.table) and all(same)
        return Comparison(is_same, same)

    def message(self) -> ParcelMessage:
        """Return the description of this parcel that is sent to a worker together with :attr:`descriptors`."""
        lengths, private = zip(*((piece.nbytes, id(piece) in self._private) for piece in self.pieces), strict=True)
        return ParcelMessage(self.table, list(lengths), self._texts, list(private))

    @property
    def descriptors(self) -> list[int]:
        return [piece.descriptor for piece in self.pieces]


def load(message: ParcelMessage, descriptors: list[int]) -> Any:
    """Load the object of a parcel, with its large arrays as read-only views of the shared memory.

    Args:
        descriptors: the descriptors of the parcel's pieces of shared memory, which this closes.
    """
    memories = []
    try:
        for descriptor, nbytes, is_private in zip(descriptors, message.lengths, message.private, strict=True):
            buffer = shared_memory.attach(descriptor, nbytes, writable=False, private=is_private)
            memories.append(shared_memory.view(buffer).toreadonly())
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return made_of(message, memories)


def made_of(message: ParcelMessage, memories: list[memoryview]) -> Any:
    """Unpickle the object of a parcel, with its large arrays as views of ``memories``, the parcel's mapped pieces."""
    table, _, texts, _ = message
    learn(texts)
    parts = [memories[piece][start : start + nbytes] for piece, start, nbytes in table]
    value, _ = pickle.loads(parts[0], buffers=parts[1:])
    return value


def is_picklable(value: Any, states: dict[int, dict[str, Any]] | None = None) -> bool:
    """Return True if ``value`` can be pickled for workers, with some attributes replaced as ``states`` says.

    ``states``: {id of an object: {attribute: the value to pickle instead}}.
    """
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return True
    pickler = ReplicaPickler(io.BytesIO(), protocol=5, buffer_callback=lambda buffer: False)
    pickler.states = states or {}
    try:
        pickler.dump(value)
    except Exception:  # a user's __reduce__ may raise anything
        return False
    return True
