"""The states of ``random`` and ``numpy.random``, saved and restored around a job in 3 us instead of 140.

Both are Mersenne twisters of 2,500 bytes. What their own functions make of these, numbers and arrays, costs more than a
batch of small examples does. So the bytes are copied as they lie in memory, where it is certain that they lie there; if
not, the functions are called.
"""

from __future__ import annotations

import ctypes
import random
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.random  # now: numpy puts it off until it is asked for, and a Ctrl-C in an import is an ImportError

_NBYTES = 4 * 624 + 4

_python: Any = random.seed.__self__  # type: ignore[attr-defined]


def _find_python() -> int | None:
    """Where the twister of ``random`` lies: behind what every object begins with, its index first."""
    _, (*words, index), _ = random.getstate()
    address = id(_python) + object.__basicsize__
    is_large_enough = random.Random.__basicsize__ >= object.__basicsize__ + _NBYTES
    if is_large_enough and ctypes.string_at(address, _NBYTES) == struct.pack("=i624I", index, *words):
        return address
    return None


_python_address = _find_python()


def save_python() -> Callable[[], None]:
    """Returns: what restores the generator of ``random``."""
    if _python_address is None:
        return partial(random.setstate, random.getstate())
    return partial(_restore_python, ctypes.string_at(_python_address, _NBYTES), _python.gauss_next)


def _restore_python(saved: bytes, gauss_next: float | None) -> None:
    ctypes.memmove(_python_address, saved, _NBYTES)  # type: ignore[arg-type]
    _python.gauss_next = gauss_next


def save_numpy() -> Callable[[], None]:
    """Returns: what restores the generator of ``numpy.random``. The state is another one from here on: seed it."""
    get = getattr(np.random, "get_bit_generator", None)  # numpy >= 1.24
    twister = get() if get is not None else None
    if type(twister) is not np.random.MT19937:
        return partial(np.random.set_state, np.random.get_state(legacy=False))
    address = twister.ctypes.state_address
    saved = ctypes.string_at(address, _NBYTES)
    # Normal numbers are drawn in pairs, and the second one kept aside: if there is one, this draws nothing.
    kept: float | None = np.random.standard_normal()
    if ctypes.string_at(address, _NBYTES) != saved:
        kept = None
    return partial(_restore_numpy, twister, saved, kept)


def _restore_numpy(twister: Any, saved: bytes, kept: float | None) -> None:
    of_numpy: Any = np.random
    if of_numpy.get_bit_generator() is not twister:
        of_numpy.set_bit_generator(twister)  # the job has put in another one
    np.random.seed(0)  # forgets the second number of a pair of the job's
    with twister.lock:
        ctypes.memmove(twister.ctypes.state_address, saved, _NBYTES)
    if kept is not None:
        state: Any = np.random.get_state(legacy=False)
        np.random.set_state({**state, "has_gauss": 1, "gauss": kept})
