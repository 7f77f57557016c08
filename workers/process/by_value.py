"""Sends to workers by value, as code or content, what they could not find by its name.

- The functions and classes of modules that a worker cannot import: a script that ``multiprocessing`` runs again in a
  child, a module loaded from a path, or one whose folder has left ``sys.path``, for instance after ``os.chdir``.
- Objects that pickle sends as a name in such a module: singletons, ``typing.NewType``, cachetools' cached functions.
- Source text that is in no file: the cells of a notebook, or code run by ``exec``. A worker needs it for the traceback
  of a job, and for anything that reads the source of a function, such as TensorFlow's AutoGraph. It is taken from
  ``linecache``, which has it under a name such as ``/tmp/ipykernel_123/456.py`` or ``<ipython-input-3-9f2c>``.
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

_POINTER = 8  # bytes
_ours: set[str] = set()  # modules that look_at() has registered with cloudpickle, e.g. {"helpers"}


def look_at(name: str | None) -> None:
    """Make cloudpickle send the functions and classes of module ``name`` by value if workers cannot import the module.

    If an earlier call has done so, but workers can import the module now, send them by name again.
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

    ``path`` is ``sys.path``, on which the answer depends; it is an argument only to be part of the cache's key.
    """
    if name == "__mp_main__":
        return False
    return any(map(functools.partial(_is_same, file), _files(name)))


def _files(name: str) -> Iterator[str]:
    """Yield the files that an import of module ``name`` would try as its source, without importing anything.

    They need not exist.
    """
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
    """Return True if class ``kind`` decides how its objects are pickled: by ``__reduce__`` or ``__reduce_ex__``."""
    plain: Any = object
    return kind.__reduce__ is not plain.__reduce__ or kind.__reduce_ex__ is not plain.__reduce_ex__


def may_be_sent_by_name(kind: Any) -> bool:
    """Return True if pickle may send objects of class ``kind`` as a mere name, so that each has to be checked.

    Classes of Python and numpy never count, except those of ``typing`` (``NewType``).
    """
    package = str(getattr(kind, "__module__", "")).partition(".")[0]
    is_others = package == "typing" or not (package == "numpy" or package in sys.stdlib_module_names)
    return is_others and reduces_itself(kind) and not issubclass(kind, type)


def reduced(obj: Any, definitions: Definitions) -> Any:
    """Return how to rebuild ``obj`` in a worker, as from ``__reduce__``: as its class defines, or from its attributes.

    The attributes are sent if its class would send only a name that workers cannot find. In that case ``obj`` is also
    added to ``definitions``, the objects that workers put into their modules under their names.

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
    """Return {name: source text} for those file names of compiled code in ``names`` that are not files on disk.

    Names that ``linecache`` does not know are left out. Runs in: consumer.
    """
    texts = {name: "".join(linecache.getlines(name)) for name in sorted(names) if not os.path.isfile(name)}
    return {name: text for name, text in texts.items() if text}


def learn(texts: dict[str, str]) -> None:
    """Add source texts, {name: text}, to ``linecache``, from which tracebacks take source lines. Runs in: worker."""
    for name, text in texts.items():
        # None as the modification time: linecache then keeps the text and looks for no file.
        linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name


def of_file(name: str, make: Callable[..., CodeType], arguments: tuple[Any, ...]) -> CodeType:
    """Return the code object made by ``make(*arguments)``, with ``name`` as its file name. Runs in: worker."""
    return make(*arguments).replace(co_filename=name)
