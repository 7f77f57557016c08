"""Tells the consumer (the user's process) which job a worker is in, by a status page: a page of shared memory.

The worker writes to the page when it begins a job and when it has no jobs left. This takes 40 ns a word, much less than
a message. So the consumer knows in which job a worker died or is stuck, and for how long. In the memory after the page,
Python's faulthandler writes the worker's stack if the worker crashes, or if a signal asks for the stack.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from workers.batch import shared_memory

_RUNNING, _SINCE, _CANCEL, _LOST, _UNWANTED = range(5)

#: The signal that asks a worker or the server for its stack. Other software is unlikely to use this signal.
STACK_SIGNAL: int = signal.SIGRTMIN + 7 if hasattr(signal, "SIGRTMIN") else getattr(signal, "SIGUSR2", 0)


class StatusPage:
    """The shared memory that shows the consumer (the user's process) a worker's current job, and its stack on a crash.

    Both processes have a StatusPage object for the same memory. The server has another page, for its own stack.

    Args:
        descriptor: the descriptor of the shared memory; None to create new memory.
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

        The worker writes which job it begins before it checks for a cancellation. The consumer cancels jobs before it
        reads which job the worker is in. So if the consumer does not see a cancelled job begun, the job never runs.
        """
        words = self._words
        words[_SINCE] = time.monotonic_ns()
        words[_RUNNING] = sending
        if sending > words[_CANCEL]:
            return True
        words[_RUNNING] = 0
        return False

    def is_unwanted(self, sending: int) -> bool:
        """Return True if the consumer no longer wants the job sent under number ``sending``, which runs."""
        return bool(sending <= self._words[_UNWANTED])

    def show_idle(self) -> None:
        """Note that the worker has no current job."""
        self._words[_RUNNING] = 0

    def lose_descriptors(self) -> None:
        """Note that a job has closed the worker's descriptors. No message can say so, as the socket is closed too."""
        self._words[_LOST] = 1

    def catch_crashes(self) -> None:
        """Make faulthandler write this process's stack after the page, on a crash and on :data:`STACK_SIGNAL`."""
        import faulthandler

        os.lseek(self.descriptor, shared_memory.PAGE, os.SEEK_SET)
        faulthandler.enable(self.descriptor, all_threads=True)
        if sys.platform != "win32":
            faulthandler.register(STACK_SIGNAL, self.descriptor, all_threads=True)

    # -- consumer

    def look(self) -> tuple[int, int]:
        """Return (number of the worker's current job, start of this job in monotonic ns); (0, 0) if there is none."""
        words = self._words
        sending = words[_RUNNING]
        return (sending, words[_SINCE]) if sending else (0, 0)

    @property
    def has_lost_descriptors(self) -> bool:
        return bool(self._words[_LOST])

    def cancel(self, sending: int, is_unwanted: bool) -> None:
        """Cancel the jobs that the worker has not begun, up to the one sent under number ``sending``.
        If ``is_unwanted``, the running one may end too, when its function yields an item."""
        self._words[_CANCEL] = sending
        if is_unwanted:
            self._words[_UNWANTED] = sending

    def take_text(self) -> str:
        """Return what faulthandler has written since the last call, as text; "" if it has written nothing."""
        size = os.fstat(self.descriptor).st_size
        text = os.pread(self.descriptor, max(0, size - self._read_to), self._read_to)
        self._read_to = max(size, self._read_to)
        return text.decode("utf-8", "replace").strip("\0\n")

    def close(self) -> None:
        os.close(self.descriptor)
