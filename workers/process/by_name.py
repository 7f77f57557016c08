"""Objects that pickle sends as a name: workers find it in a module that they can import, and not in a script.

Such are singletons, ``typing.NewType`` and the cached functions of cachetools.
"""

from __future__ import annotations

import copyreg
import functools
from typing import Any

from workers.batch.pickling import goes_by_name

from .main_module import Definitions

_POINTER = 8


def says_how(obj: Any) -> bool:
    """Whether a class other than those of numpy says itself how its objects are pickled."""
    kind: Any = type(obj)
    return _says_how(kind)


@functools.lru_cache(maxsize=4096)
def _says_how(kind: Any) -> bool:
    plain: Any = object
    is_own = kind.__reduce__ is not plain.__reduce__ or kind.__reduce_ex__ is not plain.__reduce_ex__
    return is_own and not issubclass(kind, type) and kind.__module__.partition(".")[0] != "numpy"


def reduced(obj: Any, definitions: Definitions) -> Any:
    """How the class of ``obj`` has it pickled; by its attributes instead of a name that workers do not find.

    Raises:
        TypeError: it has other contents than attributes.
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
            f"{reduction} ({kind.__name__}) can be sent only by its name, and workers do not run the script that "
            "defines it: define it in a module of its own, a file that the script imports"
        )
    in_slots = {name: getattr(obj, name) for name in slots if hasattr(obj, name)}
    return copyreg.__newobj__, (kind,), (getattr(obj, "__dict__", None), in_slots)  # type: ignore[attr-defined]
