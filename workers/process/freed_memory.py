"""What a worker's malloc keeps of the memory that its jobs have freed: as much as they needed lately.

A fresh array of a batch's size then lies on pages that are there already, instead of costing a page fault for each
4 KB. What a job needed once is given back. How much memory jobs need shows in what the process takes after all was
given back: if it takes much more later, that was more than usual, and all is given back again.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap

_LOOK_NS = 4_000_000_000  # between two looks at the memory of a busy worker
_MARGIN_NBYTES = 48 << 20  # beyond what is usual, and a quarter of that


def keep() -> None:
    """Have malloc keep what is freed, where it is glibc's."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        trim_threshold, top_pad, mmap_max = -1, -2, -4
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(top_pad, 16 << 20)


def give_back() -> None:
    """Have malloc give to others what :func:`keep` has had it keep."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def own_nbytes() -> int:
    """The memory that this process has for itself, without what it shares; 0: not known here."""
    try:
        with open("/proc/self/statm", "rb") as file:
            _, resident, shared, *_ = file.read().split()
    except OSError:
        return 0
    return (int(resident) - int(shared)) * mmap.PAGESIZE


class FreedMemory:
    """Of one worker. To be asked after each message; it takes 20 us, once in a few seconds."""

    def __init__(self) -> None:
        self._usual_nbytes: int | None = 0  # None: to be seen at the next look
        self._looked_ns: int | None = None
        self._is_idle = False

    def is_due(self, now_ns: int) -> bool:
        """Whether it is time to :meth:`look`."""
        if self._looked_ns is None:
            self._looked_ns = now_ns
        self._is_idle = False
        return now_ns - self._looked_ns > _LOOK_NS

    def look(self, now_ns: int) -> None:
        """Give back what was needed once, between two jobs."""
        self._looked_ns, nbytes = now_ns, own_nbytes()
        if self._usual_nbytes is None:
            self._usual_nbytes = nbytes
        elif nbytes > 1.25 * self._usual_nbytes + _MARGIN_NBYTES:
            self.give_back()

    def give_back(self) -> None:
        """Give back all. What is usual then is seen anew."""
        give_back()
        self._usual_nbytes = None

    def rest(self) -> bool:
        """The worker has nothing to do. Returns: whether that is new; all is given back then."""
        is_new, self._is_idle = not self._is_idle, True
        if is_new:
            self.give_back()
        return is_new
