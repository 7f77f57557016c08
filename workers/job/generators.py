"""Random generators that a Sequence holds, at any depth: seeded for each job, as the global ones are.

A copy of ``self.rng = np.random.default_rng(1)`` goes to every worker, and all of them would draw the same numbers; the
same is true of ``torch.Generator``, ``tf.random.Generator`` and of the ``SeedGenerator`` in each of Keras's layers that
draws. So before a job each is set to (seed, epoch, index, where it was found). Where it was found is the path of
attributes, items, closures and globals that leads to it, e.g. ``source.augmenter.layers[0].generator``: the same in
every process and every run. Generators that were made of the same seed, so that an image and its mask are flipped
alike, go on drawing the same numbers.

The path leads through the attributes and items of objects, and through the globals of functions, unless these are part
of an installed package. Sets are passed over (they have no order), and of long containers all but the first items.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import operator
import random
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from .installed import is_installed
from .kinds import PATHS_OF_PROCESS, Kind, bits_of, kinds_loaded, of_process
from .traced import is_traced, python_function_of

#: Attributes of a Sequence that are this process's own: where it stands, its workers, what was found in it.
NOT_SENT = frozenset(("_own_clock", "_fit", "_held", "_consumer", "_pool", "_pass", "_iterator", "_lock"))

_MAX_ITEMS = 64  # of a container
_MAX_OBJECTS = 4_000  # of a walk; nearer ones come first

Paths = list[tuple[str, Any]]  # [(path, what is there)]


class _Found(NamedTuple):
    generator: Any
    kind: Kind
    origin: Any
    number: int  # stands for where it was found


class Generators:
    """The generators that can be reached from what ``roots()`` returns: [(path, object)]."""

    def __init__(self, roots: Callable[[], Paths]) -> None:
        self._roots = roots
        self._found: dict[str, _Found] = {}  # {path: what is there}
        self._epoch = -1  # when was looked for them
        self._of_process: tuple[Any, ...] = ()  # see of_process(), at that time
        self._is_first_job = False  # since then

    def __reduce__(self) -> Any:
        return type(None), ()  # whoever gets a copy of the Sequence looks for its own

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def are_of_sequence(self) -> bool:
        """Whether the Sequence holds one, and not only the process."""
        return not set(PATHS_OF_PROCESS).issuperset(self._found)

    def begin(self, epoch: int) -> None:
        """A job of ``epoch`` begins: look for them, if there may be others than before."""
        if self._epoch != epoch or self._has_process_more():
            self._look()
            self._epoch = epoch
            self._is_first_job = True

    def has_grown(self) -> bool:
        """Whether the job that has just run has made some, whose draws were not seeded."""
        if self._epoch < 0 or not (self._is_first_job or self._has_process_more()):
            return False  # also after a job that seeds none of them
        self._is_first_job = False
        before = set(self._found)
        self._look()
        return not before.issuperset(self._found)

    def _has_process_more(self) -> bool:
        now = of_process()
        return any(map(operator.is_not, self._of_process, now)) or len(now) != len(self._of_process)

    def seed(self, number: Callable[[int], int]) -> None:
        """Seed each of them with ``number`` of where it was found."""
        for found in self._found.values():
            found.kind.seed(found.generator, number(found.number))

    def save(self) -> list[Callable[[], None]]:
        """Returns: what restores their states."""
        return [found.kind.save(found.generator) for found in self._found.values()]

    def _look(self) -> None:
        found: dict[str, _Found] = {}
        numbers: dict[Any, int] = {}  # {origin: number}
        kinds = kinds_loaded()
        self._of_process = of_process()
        known_ones = [each for each in zip(PATHS_OF_PROCESS, self._of_process, strict=False) if each[1] is not None]
        for path, generator in _without_parts([*_walk(self._roots(), tuple(kinds)), *known_ones]):
            kind = next(kinds[cls] for cls in type(generator).__mro__ if cls in kinds)
            known = self._found.get(path)
            # Once it is used in a job, its state tells no more what it was made of.
            origin = known.origin if known and known.generator is generator else kind.origin(generator)
            number = int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "little")
            if origin is not None:
                number = numbers.setdefault((kind.family, origin), number)
            found[path] = _Found(generator, kind, origin, number)
        self._found = found


def _without_parts(found: Paths) -> Paths:
    """All but the bit generators of generators that are found too, which are seeded with these; bare ones come last."""
    of_others = {id(bits_of(generator)) for _, generator in found}
    bare = [each for each in found if isinstance(each[1], np.random.BitGenerator)]
    others = [each for each in found if not isinstance(each[1], np.random.BitGenerator)]
    return others + [each for each in bare if id(each[1]) not in of_others]


# -- how they are found

_GLOBAL_ONES = random.random.__self__, np.random.mtrand._rand  # type: ignore[attr-defined]
_LEAVES = (str, bytes, bytearray, int, float, complex, bool, type(None), np.ndarray, np.generic, types.ModuleType, set)


def _walk(roots: Paths, wanted: tuple[type, ...]) -> Paths:
    """Breadth first, so that what is found has the shortest path to it."""
    found: Paths = []
    seen: dict[int, Any] = {id(each): each for each in _GLOBAL_ONES}  # holds them, so that no id comes twice
    left = deque(roots)
    torch_default = getattr(sys.modules.get("torch"), "default_generator", None)
    while left and len(seen) < _MAX_OBJECTS:
        path, here = left.popleft()
        if isinstance(here, _LEAVES) or id(here) in seen or here is torch_default:
            continue
        seen[id(here)] = here
        if isinstance(here, wanted) and not isinstance(here, random.SystemRandom):
            found.append((path, here))
        else:
            try:
                left.extend(_parts(path, here))
            except Exception:  # it does not let itself be looked into
                continue
    return found


def _parts(path: str, here: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(here, Mapping):
        for key, part in _first(here.items()):
            yield f"{path}[{key!r}]" if isinstance(key, (str, int, tuple)) else f"{path}[?]", part
    elif isinstance(here, (list, tuple, deque)):
        for at, part in enumerate(_first(here)):
            yield f"{path}[{at}]", part
    elif isinstance(here, functools.partial):
        yield from ((f"{path}.{name}", getattr(here, name)) for name in ("func", "args", "keywords"))
    elif isinstance(here, types.FunctionType):
        yield from _of_function(path, here)
    elif isinstance(here, (types.MethodType, types.BuiltinMethodType)):
        yield f"{path}.__self__", here.__self__
        yield f"{path}.__func__", getattr(here, "__func__", None)
    elif isinstance(here, type):
        yield from _of_class(path, here)
    elif is_traced(here):
        yield f"{path}.python_function", python_function_of(here)
    else:
        yield from _of_object(path, here)


def _of_object(path: str, here: Any) -> Iterator[tuple[str, Any]]:
    names = getattr(here, "__dict__", None)
    if isinstance(names, dict):
        if "_seed_generators" in names and "_layers" in names:  # a layer of Keras: its other attributes are Keras's own
            names = {name: names[name] for name in ("_seed_generators", "_layers", *_not_of_keras(here, names))}
        # Sorted: in a worker they may have been set in another order.
        for name in sorted(name for name in names if isinstance(name, str)):
            if name not in NOT_SENT and not isinstance(names[name], _LEAVES) and not _is_given(type(here), name):
                yield f"{path}.{name}", names[name]
    for cls in type(here).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            yield f"{path}.{name}", getattr(here, name, None) if not name.startswith("__") else None
    yield f"{path}.__class__", type(here)


def _not_of_keras(layer: Any, names: dict[str, Any]) -> list[str]:
    """The attributes that a layer's own class has given it, as far as they are told apart by a leading underscore."""
    return [name for name in names if not name.startswith("_") and not is_installed(type(layer).__module__)]


def _is_given(cls: type, name: str) -> bool:
    """Whether the job's own generator is given in the place of this attribute (see ``seeding``)."""
    return any(hasattr(each.__dict__.get(name), "of_job") for each in cls.__mro__)


def _of_class(path: str, here: type) -> Iterator[tuple[str, Any]]:
    for cls in here.__mro__:
        if cls is not object and not is_installed(cls.__module__):
            for name, part in sorted(cls.__dict__.items()):
                if not name.startswith("__") or name in ("__getitem__", "__call__"):
                    is_wrapped = isinstance(part, (staticmethod, classmethod))
                    yield f"{path}.{name}", part.__func__ if is_wrapped else getattr(part, "fget", part)


def _of_function(path: str, here: types.FunctionType) -> Iterator[tuple[str, Any]]:
    code = here.__code__
    for name, cell in zip(code.co_freevars, here.__closure__ or (), strict=False):
        with contextlib.suppress(ValueError):  # not yet filled
            yield f"{path}:{name}", cell.cell_contents
    yield f"{path}.__defaults__", (here.__defaults__, here.__kwdefaults__)
    if not is_installed(here.__module__):
        known = here.__globals__
        names = dict.fromkeys(_names(code))
        for name in names:
            part = known.get(name)
            if isinstance(part, types.ModuleType):
                if not is_installed(part.__name__):  # a module of the user's: what is taken from it
                    yield from ((f"{path}:{name}.{each}", part.__dict__.get(each)) for each in names)
            else:
                yield f"{path}:{name}", part


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _names(const)


def _first(items: Any) -> list[Any]:
    return [item for item, _ in zip(items, range(_MAX_ITEMS), strict=False)]
