"""Makes malloc in a worker process keep the memory that jobs free, so that the arrays of later jobs reuse it.

Memory newly obtained from the system costs a page fault for each 4 KB. But memory that a job needed only once must
not stay with the worker: if the process uses much more than usual, or becomes idle, all freed memory is returned to the
system. The usual amount is what the process uses at the first check after such a return.
"""

from __future__ import annotations

import contextlib
import ctypes

from workers.limits import private_nbytes

_LOOK_NS = 4_000_000_000  # between two checks of a busy worker's memory
_MARGIN_NBYTES = 48 << 20  # tolerated beyond 1.25 times the usual memory


def keep() -> None:
    """Make malloc keep freed memory for later use. Do nothing if the C library is not glibc."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        trim_threshold, top_pad, mmap_max = -1, -2, -4
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(top_pad, 16 << 20)


def give_back() -> None:
    """Return to the system the freed memory that malloc keeps because of :func:`keep`."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def own_nbytes() -> int:
    """Return the resident memory of this process in bytes, without shared memory; 0 if it is unknown."""
    return private_nbytes("self")


class FreedMemory:
    """The freed memory that a worker process keeps for its later jobs.

    It is checked every few seconds, after the jobs of a message; a check takes 20 us.
    """

    def __init__(self) -> None:
        self._usual_nbytes: int | None = 0  # None: to be measured at the next look()
        self._looked_ns: int | None = None
        self._is_idle = False

    def is_due(self, now_ns: int) -> bool:
        """Return True if the last :meth:`look` was more than 4 s ago.

        Call this after jobs, because it also notes that the worker is busy. ``now_ns`` is the monotonic time.
        """
        if self._looked_ns is None:
            self._looked_ns = now_ns
        self._is_idle = False
        return now_ns - self._looked_ns > _LOOK_NS

    def look(self, now_ns: int) -> None:
        """Return freed memory to the system if the process uses much more memory than usual. Call this between jobs."""
        self._looked_ns, nbytes = now_ns, own_nbytes()
        if self._usual_nbytes is None:
            self._usual_nbytes = nbytes
        elif nbytes > 1.25 * self._usual_nbytes + _MARGIN_NBYTES:
            self.give_back()

    def give_back(self) -> None:
        """Return all freed memory to the system. The next :meth:`look` then measures how much memory is usual."""
        give_back()
        self._usual_nbytes = None

    def free_when_idle(self) -> bool:
        """Note that the worker is idle. If it was busy before, give its freed memory to the system and return True."""
        is_new, self._is_idle = not self._is_idle, True
        if is_new:
            self.give_back()
        return is_new
