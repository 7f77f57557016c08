"""The user's Sequence on its way to the workers: pickled once, its large arrays in shared memory once.

:func:`pack` pickles by cloudpickle (what ``__main__`` or a notebook defines goes by value) with the buffers of large
arrays left out; these go, aligned, into one piece of shared memory behind the pickle. Every worker maps it
read-only, so that any number of workers share one copy. A ``np.memmap`` is opened again by its file instead.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import time
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from workers.batch import share, shared_memory
from workers.batch.pickling import Pickler as PicklerByValue
from workers.batch.share import Found, Piece
from workers.batch.shared_memory import address_of
from workers.batch.tree import ALIGNMENT
from workers.errors import NotPicklableError
from workers.job.process_generators import place_of_global
from workers.job.traced import is_concrete, is_traced, reduced

from . import arrays, by_value, memmap
from .arrays import SHARED_NBYTES
from .cells import learn, of_file, texts_of
from .channel import MAX_DESCRIPTORS
from .left_out import left_out, shown

#: Functions of a class: what a worker calls to get a lighter one in its place, or None.
stand_ins: list[Callable[[type], Callable[[], type] | None]] = []

# From here on each has memory of its own, which all front-ends share; but a message takes no more than 250 descriptors.
_OWN_PIECE_NBYTES = 8 << 20
_MAX_OWN_PIECES = 100


_BY_NAME = type, types.FunctionType, types.BuiltinFunctionType, np.ufunc


class Pickler(PicklerByValue):
    """Keeps large arrays dense and out of band, opens mapped files again, and sends what only workers can make."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.modules: set[str] = set()  # whose functions and classes go by name
        self.files: set[memmap.MappedFile] = set()  # which the workers will map
        self.compiled: set[str] = set()  # from which code that goes by value was compiled, e.g. {"/tmp/x/456.py"}
        self.states: dict[int, dict[str, Any]] = {}  # {id of an object: {attribute: what goes in its place}}

    def reducer_override(self, obj: Any) -> Any:
        if self.states and id(obj) in self.states:
            return _with_state(obj, self.states[id(obj)])
        if isinstance(obj, np.ndarray) and obj.nbytes >= SHARED_NBYTES and not obj.dtype.hasobject:
            again = memmap.reopened(obj)
            if again is not None:
                self.files.add(again.file())
                return memmap.open_memmap, tuple(again)
            if isinstance(obj, np.memmap):  # private changes: they are in no file
                obj = np.asarray(obj)
        if (reduction := arrays.reduced(obj)) is not None:
            return reduction
        of = place_of_global(obj)
        if of is not None:
            return getattr, of
        if isinstance(obj, type):
            for find in stand_ins:
                if (stand_in := find(obj)) is not None:
                    return stand_in, ()
        if isinstance(obj, types.CodeType):  # cloudpickle leaves out what file it is of
            self.compiled.add(obj.co_filename)
            return of_file, (obj.co_filename, *self.dispatch_table[types.CodeType](obj))
        if is_traced(obj):
            return reduced(obj)
        if is_concrete(obj):
            raise TypeError(
                f"the graph {obj.name.decode()} is of this process alone; keep the tf.function itself, which workers "
                "trace anew, and call get_concrete_function() where it is used"
            )
        if isinstance(obj, types.ModuleType):
            by_value.look_at(obj.__name__)
        elif isinstance(obj, (type, types.FunctionType)):
            by_value.look_at(obj.__module__)
        reduction = super().reducer_override(obj)
        if isinstance(obj, types.ModuleType):
            self.modules.add(obj.__name__)
        elif reduction is NotImplemented and isinstance(obj, _BY_NAME):
            self.modules.add(getattr(obj, "__module__", None) or "builtins")
        return reduction


class _Absent:
    """The type of ABSENT."""


#: In the place of an attribute that does not go at all.
ABSENT = _Absent()


def state_of(obj: Any) -> dict[str, Any]:
    """The attributes of ``obj`` that go along when it is pickled, if its class does that as usual; else none."""
    try:
        _, _, state, *_ = obj.__reduce_ex__(5)
    except Exception:  # reducers raise what they like
        return {}
    return state if isinstance(state, dict) else {}


def _with_state(obj: Any, changed: dict[str, Any]) -> Any:
    make, arguments, state, *rest = obj.__reduce_ex__(5)
    state = {name: changed.get(name, value) for name, value in state.items()}
    return make, arguments, {name: value for name, value in state.items() if value is not ABSENT}, *rest


class Pickled:
    """A pickled object whose large buffers are still those of the object itself."""

    def __init__(self, value: Any, name: str = "the Sequence", states: dict[int, dict[str, Any]] | None = None) -> None:
        """Pickle ``value``; attributes as ``states`` has them (see :class:`Pickler`).

        Raises:
            NotPicklableError: something in it cannot be pickled; names it by its path from ``name``.
        """
        self.buffers: list[memoryview] = []

        def keep_out(buffer: pickle.PickleBuffer) -> bool:
            view = buffer.raw()
            if view.nbytes < SHARED_NBYTES and share.find_bytes(address_of(view), view.nbytes) is None:
                return True
            self.buffers.append(view)
            return False

        file = io.BytesIO()
        try:
            pickler = Pickler(file, protocol=5, buffer_callback=keep_out)
            pickler.states = states or {}
            pickler.dump(value)
        except Exception as error:  # reducers raise what they like
            path, of = find_unpicklable(value, name)
            raise NotPicklableError(
                f"{shown(path)} cannot be sent to worker processes: {type(error).__name__}: {error}. "
                f"It is a {of}. Make or open it at first use in the worker (in get_examples or the augmenter: if it is "
                "None), and leave it out of what is sent: "
                f"{left_out(value, path, name)}. "
                'Or use executor="thread" or nb_workers=0.'
            ) from error
        self.pickle = file.getvalue()
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
    texts: dict[str, str]  # of its source code, as far as that lies in no file: see ``cells``


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
    """

    def __init__(self, pickled: Pickled, before: Parcel | None = None, same: list[bool] | None = None) -> None:
        self.pickle = pickled.pickle
        self.files = pickled.files
        self._texts = pickled.texts
        self.pieces: list[Piece] = []
        shared = [share.find_bytes(address_of(buffer), buffer.nbytes) for buffer in pickled.buffers]
        most = min(_MAX_OWN_PIECES, MAX_DESCRIPTORS - 1 - len({id(found.piece) for found in shared if found}))
        places: dict[int, Found] = {}  # {buffer: where it lies already}
        others: set[int] = set()  # of the pieces there: the ids of those that are not of arrays of share()
        end, starts = len(pickled.pickle), {}
        for at, buffer in enumerate(pickled.buffers):
            found = shared[at]
            if found is None and before is not None and same and same[at]:
                number, start, _ = before.table[at + 1]
                piece = before.pieces[number]
                if id(piece) in others or len(others) < most:
                    found = Found(piece, start)
                    others.add(id(piece))
            if found is None and buffer.nbytes >= _OWN_PIECE_NBYTES and len(others) < most:
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
        if len(self.pieces) > MAX_DESCRIPTORS:
            raise NotPicklableError(
                f"the sequence holds {len(self.pieces)} pieces of shared memory, and a worker can be sent no more than "
                f"{MAX_DESCRIPTORS}: give workers.share() a few large arrays, and hold views of them"
            )

    def _part(self, found: Found, nbytes: int) -> Part:
        numbers = [number for number, piece in enumerate(self.pieces) if piece is found.piece]
        if not numbers:
            self.pieces.append(found.piece)
        return Part(numbers[0] if numbers else len(self.pieces) - 1, found.start, nbytes)

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
        return ParcelMessage(self.table, [piece.nbytes for piece in self.pieces], self._texts)

    @property
    def descriptors(self) -> list[int]:
        return [piece.descriptor for piece in self.pieces]


def load(message: ParcelMessage, descriptors: list[int]) -> Any:
    """The object of a parcel. Its large arrays are read-only views of the shared memory. Closes ``descriptors``."""
    memories = []
    try:
        for descriptor, nbytes in zip(descriptors, message.lengths, strict=True):
            memories.append(shared_memory.view(shared_memory.attach(descriptor, nbytes, writable=False)).toreadonly())
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return made_of(message, memories)


def made_of(message: ParcelMessage, memories: list[memoryview]) -> Any:
    """The object of a parcel whose pieces these are."""
    table, _, texts = message
    learn(texts)
    parts = [memories[piece][start : start + nbytes] for piece, start, nbytes in table]
    return pickle.loads(parts[0], buffers=parts[1:])


def find_unpicklable(value: Any, path: str, seconds: float = 0.8) -> tuple[str, str]:
    """The smallest part of ``value`` that cannot be pickled: (path to it, name of its type)."""
    deadline = time.monotonic() + seconds
    seen: set[int] = set()
    while True:
        seen.add(id(value))
        for name, part in _parts(value, path):
            if time.monotonic() > deadline:
                return path, type(value).__name__
            if id(part) not in seen and not _is_picklable(part):
                path, value = name, part
                break
        else:
            return path, type(value).__name__


def _is_picklable(value: Any) -> bool:
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return True
    try:
        Pickler(io.BytesIO(), protocol=5, buffer_callback=lambda buffer: False).dump(value)
    except Exception:  # reducers raise what they like
        return False
    return True


def _parts(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if is_concrete(value):
        return
    if isinstance(value, dict):
        yield from ((f"{path}[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from ((f"{path}[{at}]", part) for at, part in enumerate(value))
    with contextlib.suppress(TypeError):
        yield from ((f"{path}.{name}", part) for name, part in vars(value).items())
    function = getattr(value, "__func__", value)
    if hasattr(value, "__self__") and hasattr(value, "__func__"):
        yield f"{path}.__self__", value.__self__
    code = getattr(function, "__code__", None)
    if code is not None:
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
            with contextlib.suppress(ValueError):  # not yet filled
                yield f"{path}'s variable {name!r}", cell.cell_contents
        known = function.__globals__
        yield from ((f"{path}'s global {name!r}", known[name]) for name in code.co_names if name in known)
    for name in ("func", "args", "keywords"):  # functools.partial
        if hasattr(value, "func") and hasattr(value, "keywords"):
            yield f"{path}.{name}", getattr(value, name)
