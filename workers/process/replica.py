"""The user's Sequence on its way to the workers: pickled once, its large arrays in shared memory once.

It is pickled by cloudpickle (what ``__main__`` or a notebook defines goes by value), with the buffers of large
arrays left out; these go, aligned, into one piece of shared memory behind the pickle. Every worker maps it
read-only, so that any number of workers share one copy. A ``np.memmap`` is opened again by its file instead.
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
from workers.job.process_generators import place_of_global
from workers.job.walk import Cached

from . import arrays, by_value, inheritance, memmap, tensors
from .arrays import SHARED_NBYTES
from .by_value import learn, of_file, texts_of
from .main_module import Definitions
from .unpicklable import find_unpicklable, left_out, shown

# From here on each has memory of its own, which all front-ends share; but each piece costs a descriptor.
_OWN_PIECE_NBYTES = 8 << 20
_MAX_OWN_PIECES = 100


_BY_NAME = type, types.FunctionType, types.BuiltinFunctionType, np.ufunc, Cached


class ReplicaPickler(PicklerByValue):
    """Keeps large arrays dense and out of band, opens mapped files again, and sends what only workers can make."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.modules: set[str] = set()  # whose functions and classes go by name
        self.files: set[memmap.MappedFile] = set()  # which the workers will map
        self.compiled: set[str] = set()  # from which code that goes by value was compiled, e.g. {"/tmp/x/456.py"}
        self.states: dict[int, dict[str, Any]] = {}  # {id of an object: {attribute: what goes in its place}}
        self.storages = tensors.Storages()
        self.definitions = Definitions()  # what goes by value
        self._plain: set[type] = set()  # classes whose objects go as pickle has it
        self._may_be_names: dict[type, bool] = {}  # {class of others: whether one may be sent by a name}

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
            if isinstance(obj, np.memmap):  # private changes: they are in no file
                obj = np.asarray(obj)
        if (reduction := arrays.reduced(obj)) is not None:
            return reduction
        if (of_tensor := self.storages.reduced(obj)) is not None:
            reduction, package = of_tensor
            self.modules.add(package)
            return reduction
        if (reduction := inheritance.reduced(obj)) is not None:
            return reduction
        of = place_of_global(obj)
        if of is not None:
            return getattr, of
        if isinstance(obj, type) and is_keras_dataset(obj):
            return plain_dataset, ()
        if isinstance(obj, types.CodeType):  # cloudpickle leaves out what file it is of
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
    """The type of ABSENT."""


#: In the place of an attribute that does not go at all.
ABSENT = _Absent()


def _with_state(obj: Any, changed: dict[str, Any]) -> Any:
    make, arguments, state, *rest = obj.__reduce_ex__(5)
    state = {name: changed.get(name, value) for name, value in state.items()}
    return make, arguments, {name: value for name, value in state.items() if value is not ABSENT}, *rest


class Pickled:
    """A pickled object whose large buffers are still those of the object itself."""

    def __init__(self, value: Any, name: str = "the Sequence", states: dict[int, dict[str, Any]] | None = None) -> None:
        """Pickle ``value``; attributes as ``states`` has them (see :class:`ReplicaPickler`).

        Raises:
            NotPicklableError: something in it cannot be pickled; names it by its path from ``name``.
        """
        self.buffers: list[memoryview]
        self.of_tensors: list[bool]  # which of these are the memory of tensors of torch

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
        except Exception as error:  # reducers raise what they like
            path, of, advice = find_unpicklable(value, name, is_picklable)
            advice = advice or (
                "Make or open it at first use in the worker (in get_examples or the augmenter: if it is None), and "
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
    """Where a pickle or a buffer lies: Part(0, 4096, 65536)."""

    piece: int  # which of the pieces of memory
    start: int
    nbytes: int


class ParcelMessage(NamedTuple):
    """A parcel as it is sent, beside the descriptors of its pieces."""

    table: list[Part]  # of the pickle, then of each buffer
    lengths: list[int]  # of the pieces, in bytes
    texts: dict[str, str]  # of its source code, as far as that lies in no file: see ``by_value``
    private: list[bool]  # which pieces a worker maps so that what it writes there is its own


class Comparison(NamedTuple):
    """What :meth:`Parcel.compare` finds."""

    is_same: bool
    same: list[bool]  # for each of the buffers whether that is


class Parcel:
    """A pickled object in shared memory. Where a buffer is what ``before`` has placed already, it stays there.

    Attributes:
        table: where the pickle and each buffer lie.
        pieces: the memory they lie in.
        files: those that it has the workers map.
        changed: what has changed since the parcel that workers have; None: all may have. See ``changed_attributes``.
    """

    changed: Any = None

    def __init__(self, pickled: Pickled, before: Parcel | None = None, same: list[bool] | None = None) -> None:
        self.pickle = pickled.pickle
        self.files = pickled.files
        self._texts = pickled.texts
        self.pieces: list[Piece] = []
        self._numbers: dict[int, int] = {}  # {id of a piece: its place among these}
        self._private: set[int] = set()  # the ids of those in which tensors lie, which jobs may write to
        shared = [share.find_bytes(address_of(buffer), buffer.nbytes) for buffer in pickled.buffers]
        places: dict[int, Found] = {}  # {buffer: where it lies already}
        others: set[int] = set()  # of the pieces there: the ids of those that are not of arrays of share()
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
        """Whether ``pickled`` is what lies here, byte by byte; of what is in shared memory, whether it is there."""
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
        """What is sent along with the descriptors."""
        lengths, private = zip(*((piece.nbytes, id(piece) in self._private) for piece in self.pieces), strict=True)
        return ParcelMessage(self.table, list(lengths), self._texts, list(private))

    @property
    def descriptors(self) -> list[int]:
        return [piece.descriptor for piece in self.pieces]


def load(message: ParcelMessage, descriptors: list[int]) -> Any:
    """The object of a parcel. Its large arrays are read-only views of the shared memory. Closes ``descriptors``."""
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
    """The object of a parcel whose pieces these are."""
    table, _, texts, _ = message
    learn(texts)
    parts = [memories[piece][start : start + nbytes] for piece, start, nbytes in table]
    value, _ = pickle.loads(parts[0], buffers=parts[1:])
    return value


def is_picklable(value: Any, states: dict[int, dict[str, Any]] | None = None) -> bool:
    """Whether ``value`` can be sent; attributes as ``states`` has them (see :class:`ReplicaPickler`)."""
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return True
    pickler = ReplicaPickler(io.BytesIO(), protocol=5, buffer_callback=lambda buffer: False)
    pickler.states = states or {}
    try:
        pickler.dump(value)
    except Exception:  # reducers raise what they like
        return False
    return True
