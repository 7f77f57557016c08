"""Delivers the log records of workers to the logging handlers of the program.

A worker sends all records to the consumer over its channel. It has no other handlers, except those that its jobs add.
Only the worker's main thread sends. During a job, this thread sends only what the socket takes without waiting, so that
logging never delays a job. In the consumer, a separate thread passes the records to the handlers, which may be slow.
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

_MAX_WAITING = 1000  # the most records that wait in a worker for its socket; more are dropped
_MAX_UNREAD = 10_000  # the most records that wait in the consumer for its handlers; more are dropped
_MAX_TEXT = 8000  # characters of a message, and of a traceback: the socket then takes a record whole
_END_S = 5.0
_PLAIN = frozenset({str, int, float, bool, type(None)})


class Records(logging.Handler):
    """A logging handler that queues log records of worker ``number`` for :meth:`take`. Runs in: worker."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._name_of_process = f"worker-{number}"
        self._pid = os.getpid()
        self._waiting: deque[dict[str, Any]] = deque()
        self._num_dropped = 0

    def install(self) -> None:
        """Add this handler, and remove those that imports have added: the program has them too, and will call them."""
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
        except Exception:  # the record's arguments do not fit its message
            self.handleError(record)

    def take(self) -> Logged | None:
        """Return a message with the oldest queued record, and the number of records dropped since the last message.

        Return None if no record is queued and none was dropped.
        """
        if not (self._waiting or self._num_dropped):
            return None
        record = self._waiting.popleft() if self._waiting else None
        dropped, self._num_dropped = self._num_dropped, 0
        return Logged(record, dropped)

    def _plain(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return {name: value} of the record's attributes, with its message and traceback already formatted as text.

        All values are numbers, strings or None, so any process can unpickle them.
        """
        values = {**record.__dict__, "msg": record.getMessage(), "args": None, "exc_info": None}
        if record.exc_info and not record.exc_text:
            values["exc_text"] = logging.Formatter().formatException(record.exc_info)[-_MAX_TEXT:]
        if record.process == self._pid:  # else it was made in a child of this worker
            values["processName"] = self._name_of_process
        return {name: value if type(value) in _PLAIN else str(value) for name, value in values.items()} | {
            "msg": values["msg"][:_MAX_TEXT]
        }


class Outlet(Records):
    """A logging handler that sends log records to the consumer, over the worker's channel. Runs in: worker."""

    def __init__(self, channel: Channel, number: int) -> None:
        super().__init__(number)
        self._channel = channel
        self._is_sending = False  # True during a send, when a __del__ or a signal handler may log

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        if threading.current_thread() is threading.main_thread() and not self._is_sending:
            self._send_waiting(self._channel.send_at_once)

    def send(self, message: tuple[Any, ...], files: Any = ()) -> None:
        """Send the queued log records, then ``message`` with the descriptors ``files``. All messages are sent this way.

        Blocks: until the kernel has taken everything.
        """
        self._send_waiting(self._channel.send)
        self._is_sending = True
        try:
            self._channel.send(message, files)
        finally:
            self._is_sending = False

    def flush(self) -> None:
        """Send all queued log records. The logging module calls this when the process ends.

        Blocks: until the kernel has taken them.
        """
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
    """The consumer's listener, which passes the log records of workers to the program's logging handlers.

    It runs in its own thread, which starts when the first record arrives.
    """

    def __init__(self) -> None:
        self._unread: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
        super().__init__(self._unread)
        self._num_dropped = 0  # written only by the engine's thread
        self._num_told = 0  # written by the listener's thread, and by close()

    def put(self, logged: Logged) -> None:
        """Queue a worker's log record for the handlers. If too many records are queued, only count it as dropped.

        Blocks: never. Runs in: the engine's thread.
        """
        self._num_dropped += logged.dropped
        if self._unread.qsize() >= _MAX_UNREAD:
            self._num_dropped += 1
            return
        if logged.record is not None:
            self._unread.put(logging.makeLogRecord(logged.record))
        if self._thread is None:
            try:
                self.start()
            except RuntimeError:  # no thread can be started, e.g. as the program ends
                self._thread = None

    def handle(self, record: logging.LogRecord) -> None:
        """Pass ``record`` to the handlers of the program's logger of the same name. Runs in: the listener's thread."""
        try:
            of = logging.getLogger(record.name)
            if of.isEnabledFor(record.levelno):
                of.handle(record)
        except Exception:  # raised by a handler of the user's
            if logging.raiseExceptions:
                traceback.print_exc()
        if self._unread.empty():
            self._tell_dropped()

    def _tell_dropped(self) -> None:
        dropped = self._num_dropped
        if dropped > self._num_told:
            logger.warning(
                "%d log records of workers were dropped: they came faster than they could be sent and handled",
                dropped - self._num_told,
            )
            self._num_told = dropped

    def close(self) -> None:
        """End the listener's thread. Blocks: until the handlers have taken all queued records, but at most 5 s."""
        thread = self._thread
        if thread is not None:
            self.enqueue_sentinel()
            if thread is not threading.current_thread():
                thread.join(_END_S)
        self._tell_dropped()
