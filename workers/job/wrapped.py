"""Functions that a decorator has wrapped in an object that pickle refuses or sends by a name: what they wrap.

Such are those of ``functools.cache``, ``functools.lru_cache``, ``functools.singledispatch`` and ``np.frompyfunc``.
"""

from __future__ import annotations

import functools
import gc
import types
from typing import Any

import numpy as np

#: The type of a function with a cache (``functools.lru_cache``, ``functools.cache``).
Cached: type = type(functools.lru_cache(len))

_DISPATCHER: Any = functools.singledispatch(len)


def is_dispatcher(obj: Any) -> bool:
    """Whether ``obj`` was made by ``functools.singledispatch``."""
    return type(obj) is types.FunctionType and obj.__code__ is _DISPATCHER.__code__


def function_of(obj: Any) -> Any:
    """The function that a cached function or a ufunc calls; None: it is another object, or calls none."""
    referents = gc.get_referents(obj) if type(obj) in (Cached, np.ufunc) else []
    if type(obj) is np.ufunc:
        return referents[0] if referents and callable(referents[0]) else None
    # Not __wrapped__, which functools.wraps may have set to another one. After it come a mark, types and attributes.
    for each in reversed(referents):
        if not (type(each) is object or (isinstance(each, type) and each.__module__ == "functools")) and callable(each):
            return each
    return None


def identity_of(ufunc: Any) -> list[Any]:
    """What ``np.frompyfunc`` was given as ``identity``: no item or one."""
    return [each for each in gc.get_referents(ufunc)[1:] if each is not getattr(ufunc, "__dict__", None)]
