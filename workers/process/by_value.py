"""Sends code and objects to workers by value if a worker could not find them by name.

- Functions and classes of modules that a worker cannot import: a script that ``multiprocessing`` runs again in a child,
  a module loaded from a path, or a module whose folder has left ``sys.path``, for instance after ``os.chdir``.
- Objects that pickle would send as a name in such a module: singletons, ``typing.NewType``, cachetools' functions.
- Source text that is in no file: the cells of a notebook, or code run by ``exec``. A worker needs the text for the
  tracebacks of jobs, and for libraries that read the source of a function, such as TensorFlow's AutoGraph. It is taken
  from ``linecache``, which holds it under a made-up file name such as ``<ipython-input-3-9f2c>``.
"""

from __future__ import annotations

import copyreg
import functools
import linecache
import os
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from types import CodeType
from typing import Any

import cloudpickle

from workers.batch.pickling import goes_by_name
from workers.job.installed import is_installed

from .main_module import Definitions

_POINTER = 8  # the size of a pointer in bytes
_ours: set[str] = set()  # modules that look_at() has registered with cloudpickle, e.g. {"helpers"}


def look_at(name: str | None) -> None:
    """Make cloudpickle send the functions and classes of module ``name`` by value if workers cannot import the module.

    If workers have become able to import it since an earlier call, send its functions and classes by name again.
    """
    module = sys.modules.get(name or "__main__")
    file = getattr(module, "__file__", None)
    if name is None or not isinstance(module, types.ModuleType) or not (isinstance(file, str) and file.endswith(".py")):
        return
    if name == "__main__" or is_installed(name):
        return
    if type(module) is not types.ModuleType and not os.path.isfile(file):  # e.g. torch.ops, whose file is "_ops.py"
        return
    is_importable = _leads_to(name, os.path.abspath(file), search_path())
    if not is_importable and name not in cloudpickle.list_registry_pickle_by_value() and module.__name__ == name:
        cloudpickle.register_pickle_by_value(module)
        _ours.add(name)
    elif is_importable and name in _ours:
        cloudpickle.unregister_pickle_by_value(module)
        _ours.discard(name)


def search_path() -> tuple[str, ...]:
    """Return ``sys.path`` with the current folder in place of ``""``, so that it stays valid after ``os.chdir``."""
    try:
        here = os.getcwd()
    except OSError:  # the current folder was removed
        here = ""
    return tuple(entry or here for entry in sys.path)


@functools.lru_cache(maxsize=4096)
def _leads_to(name: str, file: str, path: tuple[str, ...]) -> bool:
    """Return True if importing module ``name`` in a new process runs ``file``.

    ``path`` is the present ``sys.path``. The result depends on it, so it must be part of the cache's key.
    """
    if name == "__mp_main__":
        return False
    return any(map(functools.partial(_is_same, file), _files(name)))


def _files(name: str) -> Iterator[str]:
    """Yield the source files that importing module ``name`` would try, whether they exist or not. Import nothing."""
    first, *rest = name.split(".")
    spec = None
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec = find(first, None) if find is not None else None
        if spec is not None:
            break
    if spec is None:
        return
    if not rest:
        yield spec.origin or ""
    for folder in spec.submodule_search_locations or ():
        place = os.path.join(folder, *rest)
        yield f"{place}.py"
        yield os.path.join(place, "__init__.py")


def _is_same(file: str, other: str) -> bool:
    try:
        return os.path.abspath(other) == file or os.path.samefile(file, other)
    except (OSError, ValueError):
        return False


def reduces_itself(kind: Any) -> bool:
    """Return True if ``kind`` overrides ``__reduce__`` or ``__reduce_ex__``, to control how its objects are pickled."""
    plain: Any = object
    return kind.__reduce__ is not plain.__reduce__ or kind.__reduce_ex__ is not plain.__reduce_ex__


def may_be_sent_by_name(kind: Any) -> bool:
    """Return True if pickle may send an object of class ``kind`` as a mere name, so each such object must be checked.

    The result is False for classes of Python and numpy, except those of ``typing`` (``NewType``).
    """
    package = str(getattr(kind, "__module__", "")).partition(".")[0]
    is_others = package == "typing" or not (package == "numpy" or package in sys.stdlib_module_names)
    return is_others and reduces_itself(kind) and not issubclass(kind, type)


def reduced(obj: Any, definitions: Definitions) -> Any:
    """Return how a worker rebuilds ``obj``, in the form of a result of ``__reduce__``.

    The class of ``obj`` decides, unless it returns a name that workers cannot find. In that case the attributes are
    sent, and ``obj`` is added to ``definitions``, so that workers make it available under its name.

    Raises:
        TypeError: workers cannot find the name, and ``obj`` has content besides its attributes.
    """
    reduction = obj.__reduce_ex__(5)
    if not isinstance(reduction, str) or goes_by_name(obj, reduction):
        return reduction
    definitions.add(obj, reduction)
    kind = type(obj)
    slots: list[str] = copyreg._slotnames(kind)  # type: ignore[attr-defined]
    pointers = len(slots) + (kind.__dictoffset__ > 0) + (kind.__weakrefoffset__ > 0)
    if kind.__basicsize__ != object.__basicsize__ + _POINTER * pointers:
        raise TypeError(
            f"{reduction} ({kind.__name__}) can only be sent by name, and workers do not run the script that "
            "defines it: define it in a module of its own, a file that the script imports"
        )
    in_slots = {name: getattr(obj, name) for name in slots if hasattr(obj, name)}
    return copyreg.__newobj__, (kind,), (getattr(obj, "__dict__", None), in_slots)  # type: ignore[attr-defined]


def texts_of(names: Iterable[str]) -> dict[str, str]:
    """Return {file name: source text} for code that is in no file on disk, such as the cells of a notebook.

    ``names`` are the file names of code objects. Those unknown to ``linecache`` are left out. Runs in: consumer.
    """
    texts = {name: "".join(linecache.getlines(name)) for name in sorted(names) if not os.path.isfile(name)}
    return {name: text for name, text in texts.items() if text}


def learn(texts: dict[str, str]) -> None:
    """Add ``texts``, {file name: source text}, to ``linecache``, where tracebacks find their lines. Runs in: worker."""
    for name, text in texts.items():
        # None as the modification time: linecache then keeps the text and looks for no file.
        linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name


def of_file(name: str, make: Callable[..., CodeType], arguments: tuple[Any, ...]) -> CodeType:
    """Return the code object that ``make(*arguments)`` creates, with file name ``name``. Runs in: worker."""
    return make(*arguments).replace(co_filename=name)
