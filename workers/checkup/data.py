"""The arrays that a source holds: where they are, whether a batch is a view of one, and what was written into them."""

from __future__ import annotations

import types
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from workers.batch.nodes import leaves
from workers.job.installed import is_installed
from workers.job.task import chain_of

_MOST_LEVELS, _MOST_ITEMS, _MOST_OBJECTS = 4, 100, 10_000  # of the search for arrays
_MOST_NBYTES = 1 << 29  # of all arrays whose content is compared: half a second
_SMALL = (type(None), bool, int, float, str, bytes)

Array = np.ndarray[Any, Any]


def arrays_of(source: Any, functions: Iterable[Any]) -> dict[str, Array]:
    """Return {path: array} of the arrays in attributes, lists, dicts and closures of ``source`` and ``functions``."""
    found: dict[str, Array] = {}
    seen: dict[int, Any] = {}
    level = [(type(each).__name__, each) for each in chain_of(source)] + [("", each) for each in functions]
    for _ in range(_MOST_LEVELS + 1):
        following: list[tuple[str, Any]] = []
        for path, value in level:
            if id(value) in seen or len(seen) > _MOST_OBJECTS:
                continue
            seen[id(value)] = value
            if isinstance(value, np.ndarray):
                found[path] = value
            elif not isinstance(value, (*_SMALL, type, types.ModuleType)):
                following += _parts(path, value)
        level = following
    return {path: array for path, array in found.items() if array.size and not array.dtype.hasobject}


def _parts(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, types.FunctionType):
        named = dict(zip(value.__code__.co_freevars, value.__closure__ or (), strict=True))
        for name, cell in named.items():
            if cell != types.CellType():  # else the variable has no value yet
                yield f"{value.__name__}'s {name}", cell.cell_contents
        used = {name: value.__globals__.get(name) for name in value.__code__.co_names}
        yield from ((f"the global {name}", each) for name, each in used.items() if isinstance(each, np.ndarray))
    elif isinstance(value, types.MethodType):
        yield type(value.__self__).__name__, value.__self__
        yield path, value.__func__
    elif type(value) is dict:
        yield from ((f"{path}[{key!r}]", each) for key, each in list(value.items())[:_MOST_ITEMS])
    elif type(value) in (list, tuple):
        yield from ((f"{path}[{at}]", each) for at, each in enumerate(value[:_MOST_ITEMS]))
    else:
        attributes = getattr(value, "__dict__", None)
        if isinstance(attributes, dict):
            yield from ((f"{path}.{name}", each) for name, each in list(attributes.items()) if name != "_live")


def viewed(items: Any, arrays: dict[str, Array]) -> list[str]:
    """Return the paths of those ``arrays`` of which arrays in ``items`` are views, i.e. share their memory."""
    parts = [leaf for _, leaf in leaves(items) if isinstance(leaf, np.ndarray)]
    return [path for path, array in arrays.items() if any(np.may_share_memory(array, part) for part in parts)]


def contents(arrays: dict[str, Array]) -> dict[str, int]:
    """Return {path: a checksum} of ``arrays``, but for files that are mapped into memory, and what is beyond 512 MB."""
    found: dict[str, int] = {}
    left = _MOST_NBYTES
    for path, array in arrays.items():
        left -= array.nbytes
        if left >= 0 and not isinstance(array, np.memmap):
            found[path] = checksum(array)
    return found


def checksum(array: Array) -> int:
    """Return a checksum of the bytes, the dtype and the shape of ``array``, which holds no Python objects."""
    flat: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return zlib.crc32(flat, zlib.crc32(f"{array.dtype.str}{array.shape}".encode()))


def keeper(source: Any) -> Callable[[], None]:
    """Return a function that sets back what hooks and jobs have changed in the user's own objects in a chain.

    These are small attributes, attributes that are new, and the contents of lists, dicts, sets and arrays.
    """
    owners = [each for each in chain_of(source) if isinstance(getattr(each, "__dict__", None), dict)]
    owners = [each for each in owners if not is_installed(type(each).__module__)]
    before = [(each, {name: (value, _copy(value)) for name, value in vars(each).items()}) for each in owners]

    def restore() -> None:
        for owner, attributes in before:
            now = vars(owner)
            for name in now.keys() - attributes.keys() - {"_live"}:
                del now[name]
            for name, (value, copy) in attributes.items():
                if isinstance(value, _SMALL):
                    now[name] = value
                elif copy is not None and now.get(name) is value:
                    _fill(value, copy)

    return restore


def _copy(value: Any) -> Any:
    """Return a copy of a list, dict, set or array of the user's, to restore its content; None for other objects."""
    if isinstance(value, np.ndarray):
        is_kept = value.flags.writeable and value.nbytes < 1 << 24 and not isinstance(value, np.memmap)
        return value.copy() if is_kept else None
    return value.copy() if type(value) in (list, dict, set) else None


def _fill(value: Any, copy: Any) -> None:
    if isinstance(value, np.ndarray):
        value[...] = copy
    elif type(value) is list:
        value[:] = copy
    elif value != copy or type(value) is dict:
        value.clear()
        value.update(copy)
