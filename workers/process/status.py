"""A worker's status page: shared memory in which the consumer (the user's process) sees which job the worker is in.

The worker writes to it when it begins a job and when it has none left (40 ns a word), without a message. So the
consumer knows in which job a worker died or is stuck, and for how long. Python's faulthandler writes to the same
memory, after the page: the stack of a crashing worker, or of a stuck one that is asked for it by a signal.
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

    Both processes have a StatusPage of it. The stack of a worker that crashes or is stuck is written there too.

    Args:
        descriptor: that of the existing shared memory; None: create it.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        if descriptor is None:
            descriptor = shared_memory.create(shared_memory.PAGE)
        self.descriptor = descriptor
        self._words = shared_memory.view(shared_memory.attach(descriptor, shared_memory.PAGE)).cast("q")
        self._read_to = shared_memory.PAGE

    # -- worker

    def begin(self, sending: int) -> bool:
        """Note that job ``sending`` (its number) begins. Return False if the consumer has cancelled it, else True.

        The worker first writes which job it begins and then checks for a cancellation; the consumer first cancels and
        then reads which job was begun. So no job runs that the worker takes for valid and the consumer for cancelled.
        """
        words = self._words
        words[_SINCE] = time.monotonic_ns()
        words[_RUNNING] = sending
        if sending > words[_CANCEL]:
            return True
        words[_RUNNING] = 0
        return False

    def rest(self) -> None:
        """Note that the worker is in no job."""
        self._words[_RUNNING] = 0

    def lose_descriptors(self) -> None:
        """Note that the worker cannot send messages, as a job has closed its descriptors. This needs no descriptor."""
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
        """Return (number of the job that the worker is in, its start in monotonic ns); (0, 0): it is in none."""
        words = self._words
        sending = words[_RUNNING]
        return (sending, words[_SINCE]) if sending else (0, 0)

    @property
    def has_lost_descriptors(self) -> bool:
        return bool(self._words[_LOST])

    def cancel(self, sending: int) -> None:
        """Cancel the jobs numbered up to ``sending`` that the worker has not begun."""
        self._words[_CANCEL] = sending

    def take_text(self) -> str:
        """Return the stacks that faulthandler has written since the last call; an empty text if none."""
        size = os.fstat(self.descriptor).st_size
        text = os.pread(self.descriptor, max(0, size - self._read_to), self._read_to)
        self._read_to = max(size, self._read_to)
        return text.decode("utf-8", "replace").strip("\0\n")

    def close(self) -> None:
        os.close(self.descriptor)
