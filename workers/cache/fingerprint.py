"""Identifies what is cached in a folder by a hash of the source and the functions, equal in each run of the program.

Objects are hashed by their content, and functions by their code, with what they refer to. What a library defines, i.e.
anything in an installed package, counts by its name and the version of the package.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import os
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from workers import frameworks
from workers.checks import short
from workers.frameworks.keras import Counted
from workers.job.installed import is_installed
from workers.job.walk import Cached, function_of

_PLAIN = int, float, complex, bool, str, bytes, bytearray, type(None), type(...), range, slice


class NoFingerprintError(TypeError):
    """Raised if an object has no content that could be hashed the same way in each run of the program."""


def fingerprint(*objects: Any) -> str:
    """Return a hash of ``objects``, as a text of 32 characters.

    Raises:
        NoFingerprintError: an object among them can change without a trace, such as an open file.
    """
    hashing = _Hashing()
    for each in objects:
        hashing.add(each)
    return hashing.result()


class _Hashing:
    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self._seen: dict[int, int] = {}  # {id of an object: its number}
        self._held: list[Any] = []  # so that no id is used again
        self._path: list[str] = []

    def result(self) -> str:
        return self._hash.hexdigest()

    def add(self, obj: Any) -> None:
        """Hash ``obj``, with its class."""
        kind = type(obj)
        self._text(kind.__qualname__)
        if kind in _PLAIN:
            self._text(repr(obj))
            return
        if id(obj) in self._seen:  # a circle, or the same object again
            self._text(f"#{self._seen[id(obj)]}")
            return
        self._seen[id(obj)] = len(self._seen)
        self._held.append(obj)
        self._add_new(obj, kind)

    def _add_new(self, obj: Any, kind: type) -> None:
        if kind in (list, tuple):
            self._each(enumerate(obj))
        elif kind is dict:
            self._each(obj.items(), with_keys=True)
        elif kind in (set, frozenset):
            self._text(" ".join(sorted(fingerprint(each) for each in obj)))
        elif isinstance(obj, np.ndarray):
            self._array(obj)
        elif isinstance(obj, np.generic | np.dtype):
            self._text(repr(obj))
        elif isinstance(obj, enum.Enum):
            self.add(kind)
            self._each([(obj.name, obj.value)])
        elif isinstance(obj, types.MappingProxyType):
            self._each(obj.items(), with_keys=True)
        elif isinstance(obj, types.ModuleType):
            self._module(obj)
        elif isinstance(obj, os.PathLike):
            self._text(os.fspath(obj))
        elif isinstance(obj, functools.partial):
            self._each(enumerate((obj.func, obj.args, obj.keywords)))
        elif kind is Cached or isinstance(obj, np.ufunc):
            self._named(obj) if function_of(obj) is None else self.add(function_of(obj))
        elif isinstance(obj, types.FunctionType):
            self._function(obj)
        elif isinstance(obj, types.MethodType):
            self._each(enumerate((obj.__func__, obj.__self__)))
        elif isinstance(obj, types.CodeType):
            self._code(obj)
        elif isinstance(obj, type):
            self._class(obj)
        elif isinstance(obj, Counted):
            self.add(obj.dataset)
        elif isinstance(obj, types.BuiltinFunctionType | types.MethodDescriptorType | types.WrapperDescriptorType):
            self._named(obj)
        else:
            self._object(obj)

    def _text(self, text: str) -> None:
        encoded = text.encode("utf-8", "surrogatepass")
        self._hash.update(b"%d:" % len(encoded))
        self._hash.update(encoded)

    def _each(self, items: Iterable[tuple[Any, Any]], with_keys: bool = False) -> None:
        self._text("(")
        for key, value in items:
            if with_keys:
                self.add(key)
            self._path.append(str(key)[:40])
            self.add(value)
            self._path.pop()
        self._text(")")

    def _array(self, array: Any) -> None:
        self._text(f"{array.dtype.str} {array.dtype.descr if array.dtype.names else ''} {array.shape}")
        if type(array) not in (np.ndarray, np.memmap):
            self._each(vars(array).items() if type(array) is not np.ma.MaskedArray else (), with_keys=True)
        if isinstance(array, np.ma.MaskedArray):
            self._each(enumerate((np.ma.getmaskarray(array), array.filled(0) if not array.dtype.hasobject else None)))
        elif array.dtype.hasobject:
            self._each(enumerate(array.ravel().tolist()))
        else:
            self._hash.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def _module(self, module: types.ModuleType) -> None:
        """Hash ``module``: one of a library by its version, one of the user's by all that it defines."""
        self._text(_version_of(module.__name__))
        if not is_installed(module.__name__):
            values = {name: value for name, value in vars(module).items() if not name.startswith("__")}
            self._each((name, values[name]) for name in sorted(values))

    def _function(self, function: Any) -> None:
        cells = [_content(cell) for cell in function.__closure__ or ()]
        if is_installed(function.__globals__.get("__name__")):  # not __module__, which functools.wraps changes
            self._named(function)
            self._each(enumerate(cells))  # a decorator's: the user's function
            return
        attributes = {name: value for name, value in vars(function).items() if name != "__wrapped__"}
        parts = function.__code__, function.__defaults__, function.__kwdefaults__, cells, attributes
        self._each(enumerate(parts))
        known = function.__globals__
        used = sorted(name for name in set(_names(function.__code__)) if name in known)
        self._each((name, known[name]) for name in used)

    def _code(self, code: types.CodeType) -> None:
        self._hash.update(code.co_code)
        self._text(f"{code.co_name} {code.co_names} {code.co_varnames} {code.co_freevars} {code.co_cellvars}")
        self._text(f"{code.co_flags} {code.co_argcount} {code.co_kwonlyargcount} {code.co_posonlyargcount}")
        has_docstring = code.co_name[:1] != "<" and code.co_consts and isinstance(code.co_consts[0], str)
        self._each(enumerate(code.co_consts[1:] if has_docstring else code.co_consts))

    def _class(self, kind: type) -> None:
        if is_installed(kind.__module__):
            self._named(kind)
            return
        self._text(kind.__qualname__)
        self._each(enumerate((type(kind), *kind.__bases__)))
        values = {name: _unwrapped(value) for name, value in vars(kind).items() if not _is_skipped(name)}
        values = {name: values[name] for name in sorted(values) if not isinstance(values[name], _DESCRIPTORS)}
        self._each(values.items(), with_keys=True)

    def _named(self, obj: Any) -> None:
        """Hash ``obj``, which a library defines, by its name and the version of the library."""
        of = getattr(obj, "__self__", None)
        module = getattr(obj, "__module__", None) or getattr(of, "__name__", None) or "builtins"
        self._text(f"{_version_of(module)} {getattr(obj, '__qualname__', getattr(obj, '__name__', ''))}")
        if of is not None and not isinstance(of, types.ModuleType | type):
            self.add(of)

    def _object(self, obj: Any) -> None:
        """Hash ``obj`` by its class and by what a copy of it would be made from."""
        if type(obj).__module__.partition(".")[0] in frameworks.PACKAGES:
            array = frameworks.first_answer("to_numpy", obj)
            if array is not None:
                self._array(np.asarray(array))
                return
            if any(frameworks.asked("is_traced", obj)):
                self.add(frameworks.first_answer("python_function_of", obj))
                return
        self.add(type(obj))
        state = _state_of(obj)
        if state is None:
            where = ".".join(self._path[-3:])
            raise NoFingerprintError(
                f"a cache in a folder is found again by what is cached, but {short(obj)} ({type(obj).__name__}) at "
                f"{where or 'the source'} cannot be identified in another run of the program: give name=... to "
                ".cache(folder), and another name when the source or a function changes"
            )
        self._each(enumerate(state))


_SKIPPED = frozenset(
    f"__{name}__"
    for name in (
        *("abstractmethods", "annotations", "annotate", "annotations_cache", "dict", "doc", "firstlineno", "module"),
        *("parameters", "orig_bases", "qualname", "slotnames", "static_attributes", "weakref"),
    )
)
_SEEDS = "_sequence_seed", "_given_seed"  # of a Sequence: nothing may draw from them before a cache
_DESCRIPTORS = types.GetSetDescriptorType, types.MemberDescriptorType


def _state_of(obj: Any) -> Any:
    """Return what identifies ``obj`` besides its class: the state that a copy would have; None if it has no such."""
    try:
        reduced = obj.__reduce_ex__(4)
    except Exception:  # reducers may raise anything
        return None
    if isinstance(reduced, str):
        return [reduced]
    function, arguments, *others = reduced
    state = others[0] if others else None
    if isinstance(state, dict):
        state = {name: value for name, value in state.items() if name not in _SEEDS}
    return [function, arguments, state, *(None if each is None else list(each) for each in others[1:3])]


def _is_skipped(name: str) -> bool:
    """Return True for an attribute of a class that says nothing about what its objects do, or that Python adds."""
    return name.startswith("_abc_") or name in _SKIPPED


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is not set yet
        return None


def _unwrapped(value: Any) -> Any:
    if isinstance(value, staticmethod | classmethod):
        return type(value).__name__, value.__func__
    if isinstance(value, property):
        return "property", value.fget, value.fset
    return ("cached_property", value.func) if isinstance(value, functools.cached_property) else value


def _names(code: types.CodeType) -> Iterable[str]:
    """Yield the names of globals (and of attributes) that ``code``, and the functions defined in it, use."""
    yield from code.co_names
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from _names(each)


@functools.lru_cache(maxsize=1024)
def _version_of(module: str) -> str:
    """Return the name of ``module`` and the version of its package."""
    package = module.partition(".")[0]
    version: Callable[[], str] | str = getattr(sys.modules.get(package), "__version__", "")
    return f"{module} {version if isinstance(version, str) and version else sys.version.split()[0]}"
