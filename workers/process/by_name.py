"""Objects that pickle sends as a name: workers find it in a module that they can import, and not in a script.

Such are singletons, ``typing.NewType`` and the cached functions of cachetools.
"""

from __future__ import annotations

import copyreg
import sys
from typing import Any

from workers.batch.pickling import goes_by_name

from .main_module import Definitions

_POINTER = 8


def reduces_itself(kind: Any) -> bool:
    """Whether a class says itself how its objects are pickled."""
    plain: Any = object
    return kind.__reduce__ is not plain.__reduce__ or kind.__reduce_ex__ is not plain.__reduce_ex__


def may_be(kind: Any) -> bool:
    """Whether an object of this class may be sent by a name. Those of Python and numpy are not, but ``NewType`` is."""
    package = str(getattr(kind, "__module__", "")).partition(".")[0]
    is_others = package == "typing" or not (package == "numpy" or package in sys.stdlib_module_names)
    return is_others and reduces_itself(kind) and not issubclass(kind, type)


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
