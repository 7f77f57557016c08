"""A worker's status page: shared memory from which the consumer reads what the worker is in.

The worker writes it before and after every job (40 ns a word), without a message; so the consumer knows which
job a worker died in, or is stuck in, and how long. What Python's faulthandler has to say goes into the same
memory, behind the page: the stack of a stuck worker, when asked for by a signal, or of a crashing one.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from workers.batch import shared_memory

_RUNNING, _SINCE, _CANCEL, _LOST = range(4)

#: What asks a worker for its stack: a signal that nothing else is likely to use.
STACK_SIGNAL: int = signal.SIGRTMIN + 7 if hasattr(signal, "SIGRTMIN") else getattr(signal, "SIGUSR2", 0)


class StatusPage:
    """The page, at either end. ``descriptor`` stays open for the text behind the page."""

    def __init__(self, descriptor: int | None = None) -> None:
        if descriptor is None:
            descriptor = shared_memory.create(shared_memory.PAGE)
        self.descriptor = descriptor
        self._words = shared_memory.view(shared_memory.attach(descriptor, shared_memory.PAGE)).cast("q")
        self._read_to = shared_memory.PAGE

    # -- worker

    def begin(self, sending: int) -> bool:
        """A job begins, unless the consumer has said meanwhile that nobody waits for it.

        The worker says first what it begins, and then looks whether it may; the consumer cancels first, and then looks
        what was begun. So it cannot be that a job runs of which neither knows.
        """
        words = self._words
        words[_SINCE] = time.monotonic_ns()
        words[_RUNNING] = sending
        if sending > words[_CANCEL]:
            return True
        words[_RUNNING] = 0
        return False

    def rest(self) -> None:
        """No job runs."""
        self._words[_RUNNING] = 0

    def lose_descriptors(self) -> None:
        """The worker's descriptors were closed, so nothing can be sent. This page is memory, and stays."""
        self._words[_LOST] = 1

    def catch_crashes(self) -> None:
        """Have faulthandler write the stack here, on a crash and on :data:`STACK_SIGNAL`."""
        import faulthandler

        os.lseek(self.descriptor, shared_memory.PAGE, os.SEEK_SET)
        faulthandler.enable(self.descriptor, all_threads=True)
        if sys.platform != "win32":
            faulthandler.register(STACK_SIGNAL, self.descriptor, all_threads=True)

    # -- consumer

    def look(self) -> tuple[int, int]:
        """(sending of the job that runs, since when in monotonic nanoseconds); (0, 0) for none."""
        words = self._words
        sending = words[_RUNNING]
        return (sending, words[_SINCE]) if sending else (0, 0)

    @property
    def has_lost_descriptors(self) -> bool:
        return bool(self._words[_LOST])

    def cancel(self, sending: int) -> None:
        """The worker need not begin jobs up to this sending."""
        self._words[_CANCEL] = sending

    def take_text(self) -> str:
        """What faulthandler has written since the last call."""
        size = os.fstat(self.descriptor).st_size
        text = os.pread(self.descriptor, max(0, size - self._read_to), self._read_to)
        self._read_to = max(size, self._read_to)
        return text.decode("utf-8", "replace").strip("\0\n")

    def close(self) -> None:
        os.close(self.descriptor)
