"""Tells the consumer (the user's process) which job a worker is in, by a status page that they share.

The page is shared memory. The worker writes to it when it begins a job and when it has none left; that takes 40 ns a
word, much less than a message. So the consumer knows in which job a worker died or is stuck, and for how long. After
the page, Python's faulthandler writes the stack of a worker that crashes, or that is asked for its stack by a signal.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from workers.batch import shared_memory

_RUNNING, _SINCE, _CANCEL, _LOST = range(4)

#: The signal that asks a worker for its stack. Nothing else is likely to use it.
STACK_SIGNAL: int = signal.SIGRTMIN + 7 if hasattr(signal, "SIGRTMIN") else getattr(signal, "SIGUSR2", 0)


class StatusPage:
    """The shared memory in which a worker notes its current job for the consumer (the user's process).

    Each of the two has its own StatusPage object. The stack of a worker that crashes or is stuck is written there too.

    Args:
        descriptor: that of the shared memory; None to create it.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        if descriptor is None:
            descriptor = shared_memory.create(shared_memory.PAGE)
        self.descriptor = descriptor
        self._words = shared_memory.view(shared_memory.attach(descriptor, shared_memory.PAGE)).cast("q")
        self._read_to = shared_memory.PAGE

    # -- worker

    def begin(self, sending: int) -> bool:
        """Note that the job sent under number ``sending`` begins. Return False if the consumer has cancelled it.

        The worker first writes which job it begins, and then checks for a cancellation. The consumer first cancels, and
        then reads which job the worker is in. So a job that the consumer then finds not begun never runs.
        """
        words = self._words
        words[_SINCE] = time.monotonic_ns()
        words[_RUNNING] = sending
        if sending > words[_CANCEL]:
            return True
        words[_RUNNING] = 0
        return False

    def show_idle(self) -> None:
        """Note that the worker is in no job."""
        self._words[_RUNNING] = 0

    def lose_descriptors(self) -> None:
        """Note that a job has closed the worker's descriptors, so it cannot send messages. This note needs none."""
        self._words[_LOST] = 1

    def catch_crashes(self) -> None:
        """Let faulthandler write this process's stack after the page, on a crash and on :data:`STACK_SIGNAL`."""
        import faulthandler

        os.lseek(self.descriptor, shared_memory.PAGE, os.SEEK_SET)
        faulthandler.enable(self.descriptor, all_threads=True)
        if sys.platform != "win32":
            faulthandler.register(STACK_SIGNAL, self.descriptor, all_threads=True)

    # -- consumer

    def look(self) -> tuple[int, int]:
        """Return (number of the job that the worker is in, its start in monotonic ns); (0, 0) if it is in none."""
        words = self._words
        sending = words[_RUNNING]
        return (sending, words[_SINCE]) if sending else (0, 0)

    @property
    def has_lost_descriptors(self) -> bool:
        return bool(self._words[_LOST])

    def cancel(self, sending: int) -> None:
        """Cancel all jobs with numbers up to ``sending`` that the worker has not begun."""
        self._words[_CANCEL] = sending

    def take_text(self) -> str:
        """Return the stacks that faulthandler has written since the last call; an empty text if there are none."""
        size = os.fstat(self.descriptor).st_size
        text = os.pread(self.descriptor, max(0, size - self._read_to), self._read_to)
        self._read_to = max(size, self._read_to)
        return text.decode("utf-8", "replace").strip("\0\n")

    def close(self) -> None:
        os.close(self.descriptor)
