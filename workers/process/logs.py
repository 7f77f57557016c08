"""Log records of workers, on their way to the logging handlers of the program.

A worker has no handlers of its own, but for what its jobs add: all records go to the consumer, over the worker's
channel. Only the worker's main thread sends, and within a job only what the socket takes at once, so that a record
never makes a job wait. In the consumer a thread of its own hands them to the handlers, which may be slow.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import queue
import threading
import traceback
from collections import deque
from typing import Any

from .channel import Channel
from .messages import Logged

logger = logging.getLogger("workers")

_MAX_WAITING = 1000  # records in a worker that its socket has not taken
_MAX_UNREAD = 10_000  # records in the consumer that its handlers have not had
_MAX_TEXT = 8000  # characters of a message, and of a traceback: the socket then takes a record as a whole
_END_S = 5.0
_PLAIN = frozenset({str, int, float, bool, type(None)})


class Records(logging.Handler):
    """Keeps the records of worker ``number`` until they are taken. Runs in: worker."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._name_of_process = f"worker-{number}"
        self._pid = os.getpid()
        self._waiting: deque[dict[str, Any]] = deque()
        self._num_dropped = 0

    def install(self) -> None:
        """Take the place of the handlers that imports have made: the program, which has them too, is to use its own."""
        for each in [logging.root, *logging.root.manager.loggerDict.values()]:
            if isinstance(each, logging.Logger):
                each.handlers.clear()
                each.propagate = True
        logging.root.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if len(self._waiting) >= _MAX_WAITING:
            self._num_dropped += 1
            return
        try:
            self._waiting.append(self._plain(record))
        except Exception:  # its arguments do not fit its message
            self.handleError(record)

    def take(self) -> Logged | None:
        """The first one that waits, and how many are lost; None: none is."""
        if not (self._waiting or self._num_dropped):
            return None
        record = self._waiting.popleft() if self._waiting else None
        dropped, self._num_dropped = self._num_dropped, 0
        return Logged(record, dropped)

    def _plain(self, record: logging.LogRecord) -> dict[str, Any]:
        """What anybody can unpickle and a handler can format."""
        values = {**record.__dict__, "msg": record.getMessage(), "args": None, "exc_info": None}
        if record.exc_info and not record.exc_text:
            values["exc_text"] = logging.Formatter().formatException(record.exc_info)[-_MAX_TEXT:]
        if record.process == self._pid:  # else it is of a worker of this worker
            values["processName"] = self._name_of_process
        return {name: value if type(value) in _PLAIN else str(value) for name, value in values.items()} | {
            "msg": values["msg"][:_MAX_TEXT]
        }


class Outlet(Records):
    """Sends them over the worker's channel. Runs in: worker."""

    def __init__(self, channel: Channel, number: int) -> None:
        super().__init__(number)
        self._channel = channel
        self._is_sending = False  # a record may come meanwhile, of a __del__ or a signal's handler

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        if threading.current_thread() is threading.main_thread() and not self._is_sending:
            self._send_waiting(self._channel.send_at_once)

    def send(self, message: tuple[Any, ...], files: Any = ()) -> None:
        """Send a message of the worker's, behind all records that wait. Blocks: until the kernel has taken it."""
        self._send_waiting(self._channel.send)
        self._is_sending = True
        try:
            self._channel.send(message, files)
        finally:
            self._is_sending = False

    def flush(self) -> None:
        """Send all records that wait: logging asks every handler to when the process ends. Blocks: as :meth:`send`."""
        if os.getpid() == self._pid and threading.current_thread() is threading.main_thread() and not self._is_sending:
            self._send_waiting(self._channel.send)

    def _send_waiting(self, send: Any) -> None:
        self._is_sending = True
        try:
            while (logged := self.take()) is not None:
                if send(logged) is False:
                    if logged.record is not None:
                        self._waiting.appendleft(logged.record)
                    self._num_dropped += logged.dropped
                    return
        except OSError:  # the consumer is gone; or this is a fork, whose copy of the channel is closed
            self._waiting.clear()
        finally:
            self._is_sending = False


class Inlet(logging.handlers.QueueListener):
    """Hands records of workers to the program's handlers, in a thread of its own that the first record starts."""

    def __init__(self) -> None:
        self._unread: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
        super().__init__(self._unread)
        self._num_dropped = 0  # written by the engine's thread alone
        self._num_told = 0  # and this by our own

    def put(self, logged: Logged) -> None:
        """Have a record handled. Blocks: never. Runs in: the engine's thread."""
        self._num_dropped += logged.dropped
        if self._unread.qsize() >= _MAX_UNREAD:
            self._num_dropped += 1
            return
        if logged.record is not None:
            self._unread.put(logging.makeLogRecord(logged.record))
        if self._thread is None:
            try:
                self.start()
            except RuntimeError:  # the program ends
                self._thread = None

    def handle(self, record: logging.LogRecord) -> None:
        """As the program's own logger of that name does it. Runs in: its own thread."""
        try:
            of = logging.getLogger(record.name)
            if of.isEnabledFor(record.levelno):
                of.handle(record)
        except Exception:  # a handler of the user's
            if logging.raiseExceptions:
                traceback.print_exc()
        if self._unread.empty():
            self._tell_dropped()

    def _tell_dropped(self) -> None:
        dropped = self._num_dropped
        if dropped > self._num_told:
            logger.warning(
                "%d log records of workers were dropped: they came faster than they could be handled",
                dropped - self._num_told,
            )
            self._num_told = dropped

    def close(self) -> None:
        """Blocks: until the handlers have had all records, or one of them takes too long."""
        thread = self._thread
        if thread is not None:
            self.enqueue_sentinel()
            if thread is not threading.current_thread():
                thread.join(_END_S)
        self._tell_dropped()
