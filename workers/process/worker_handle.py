"""Controls one worker process from the consumer: sends messages to it, and converts its answers to events."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from typing import Any

from workers.batch.slot_reader import SlotReader
from workers.engine.executor import Cancelled, Death, Detail, Done, Event, Failed, Stuck, Trimmed, Yielded
from workers.engine.remote_errors import RemoteFailure
from workers.engine.schedule import JobRow

from . import channel as channels
from . import inheritance, memmap, messages, replica
from .channel import Channel
from .item_slots import ItemSlots, KnownSlots, SentItem
from .program_settings import ProgramSettings
from .status import StatusPage

_LOOKS, _LOOK_S = 10, 0.005  # how often, and how far apart, to check whether a process with a closed socket is dead


class WorkerHandle:
    """The consumer's handle of one worker process, from before it is forked until it is reaped.

    Args:
        name: identifies the process among all that the pool ever starts.
        number: 0 to nb_workers - 1; if the process dies, its replacement gets the same number.
        item_slots: the shared memory through which the worker gets items of a stream, the inputs of jobs.
    """

    def __init__(self, name: int, number: int, item_slots: ItemSlots) -> None:
        self.name = name
        self.number = number
        self.page = StatusPage()
        try:
            mine, self.theirs = channels.pair()
        except OSError:
            self.page.close()
            raise
        mine.setblocking(False)
        self.channel = Channel(mine)
        self.channel.hold()  # send no messages until the worker is forked
        self.pid: int | None = None
        self.is_ready = False
        self.is_leaving = False  # the worker is no longer needed and was asked to exit
        self.is_watched = False  # the socket is in the executor's selector
        self.awaits_room = False  # the selector also waits for the socket to become writable
        self.stuck: Stuck | None = None  # why the engine kills the worker; None if it does not
        self.has_hung_up = False  # the worker's socket is closed although the worker is alive
        self._reader = SlotReader()
        self._known = KnownSlots(item_slots)

    def order(self) -> tuple[messages.Fork, list[int]]:
        """Return (the order that makes the server fork this worker, the descriptors to send with the order)."""
        streams = [stream for stream in (1, 2) if _is_open(stream)]
        return messages.Fork(self.name, self.number, streams), [self.theirs.fileno(), self.page.descriptor, *streams]

    def forked(self, pid: int) -> None:
        """Record that the worker runs as process ``pid``, and send it the messages that were held back so far."""
        self.pid = pid
        self.theirs.close()
        with contextlib.suppress(ConnectionError):  # the worker has died: the server will report it
            self.channel.let_go()

    def load(self, number: int, parcel: replica.Parcel, settings: ProgramSettings, changed: Any = None) -> None:
        """Send the worker replica ``number``, a new copy of the sequence (in ``parcel``), and the program's settings.

        Args:
            changed: what differs from the last replica (see ``changed_attributes``); None if anything may differ.
        """
        tracker = inheritance.tracker()
        files = parcel.descriptors if tracker is None else [*parcel.descriptors, tracker]
        key, has_tracker = inheritance.key(), tracker is not None
        self._transmit(messages.Load(number, parcel.message(), settings, key, has_tracker, changed), files, parcel)

    def send(self, rows: list[JobRow], number: int) -> None:
        """Send the worker jobs to run on replica ``number`` (its copy of the sequence), and the numbers of freed slots.

        The worker returns batches in slots (pieces of shared memory), and may use freed slots again.
        """
        files: list[int] = []
        slots: list[tuple[int, int]] = []
        plain: list[tuple[Any, ...]] = []
        for row in rows:
            payload = row.payload
            if isinstance(payload, SentItem):
                self._known.learn(payload, slots, files)
                plain.append((*row[:4], tuple(payload.message)))
            else:
                plain.append(tuple(row))
        jobs = messages.Jobs(number, plain, self._reader.take_freed(), slots, self._known.take_gone())
        self._transmit(jobs, files)

    def trim(self) -> None:
        """Ask the worker to free all memory that it keeps for later jobs."""
        self._transmit(messages.Trim(self._reader.take_freed()), [])

    def stop(self) -> None:
        """Ask the worker to exit, and cancel all jobs that it has not begun."""
        self.page.cancel(2**62, True)
        self._transmit(messages.Stop(), [])

    def _transmit(self, message: tuple[Any, ...], files: list[int], owner: Any = None) -> None:
        with contextlib.suppress(ConnectionError):  # the worker has died: the server will report it
            self.channel.send(message, files, owner)

    def events_of(self, results: messages.Results, files: list[int]) -> list[Event]:
        """Convert a message of results to events for the engine: one for each job, and Trimmed if it answers a Trim.

        ``files``: the descriptors that came with the message, which this closes.
        """
        reader = self._reader
        reader.learn(results.slots, results.gone, results.forgets, results.layouts, files)
        events: list[Event] = [Trimmed(self.name, reader.nbytes)] if results.answers_trim else []
        details = {sending: Detail(self.number, start_ns, stages) for sending, start_ns, stages in results.details}
        for sending, job_ns, what in results.rows:
            if what is None:
                events.append(Cancelled(self.name, sending))
                continue
            if isinstance(what, RemoteFailure):
                events.append(Failed(self.name, sending, what, job_ns, details.get(sending)))
                continue
            _, _, _, nbytes, _ = what
            unread = reader.unread(what)
            if job_ns == messages.YIELDED:
                events.append(Yielded(self.name, sending, unread, nbytes))
            else:
                events.append(Done(self.name, sending, unread, job_ns, nbytes, details.get(sending)))
        return events

    def death(self, exit_code: int | None, max_rss: int, files: Iterable[memmap.MappedFile]) -> Death:
        """Return the record of the worker's death. ``files``: the files it had mapped, which may explain a SIGBUS."""
        stack = (self.stuck.stack if self.stuck is not None else "") or self.page.take_text()
        shortened = tuple(memmap.shortened(files)) if exit_code == -signal.SIGBUS else ()
        has_hung_up = self.has_hung_up or self.page.has_lost_descriptors
        return Death(self.pid, exit_code, self.stuck, max_rss, stack, shortened, has_hung_up=has_hung_up)

    def hung_up(self) -> None:
        """Handle an end of file on the worker's socket: record that a job has closed the socket if the worker is alive.

        Record nothing for a worker that was asked to exit, as it closes the socket itself.
        """
        self.has_hung_up = not self.is_leaving and self.pid is not None and _lives(self.pid)

    def close(self) -> None:
        self.channel.close()
        self.theirs.close()
        self.page.close()


def _lives(pid: int) -> bool:
    """Return True if process ``pid`` is still alive after 50 ms. If it is dying, its socket is closed just before."""
    import psutil

    for _ in range(_LOOKS):
        try:
            if psutil.Process(pid).status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                return False
        except (psutil.Error, OSError):  # the process is gone, or no descriptor is left for the check
            return False
        time.sleep(_LOOK_S)
    return True


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
