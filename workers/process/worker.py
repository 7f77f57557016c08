"""Runs a worker process: it receives jobs, computes them on its replica (copy) of the Sequence, and sends the results.

A worker receives a ``Load`` message with the replica, then any number of ``Jobs``, until ``Stop`` or an end of file.
The results of short jobs are sent together: after the last job of a message, or earlier once 8 ms have passed.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import os
import pickle
import signal
import socket
import sys
import time
from typing import Any

from workers.batch import slot_writer
from workers.batch.label import check_replica
from workers.batch.slot_writer import SlotWriter
from workers.batch.slots import MAX_SLOTS
from workers.engine.remote_errors import exit_code, pack
from workers.engine.schedule import JobRow
from workers.errors import IntegrityError
from workers.job import seeding
from workers.job.context import begin_marks, mark, stages
from workers.job.cores import Cores
from workers.job.interpreter_lock import LockProbe
from workers.job.notes import Notes, with_notes
from workers.job.portions import EVERY_NS, JobUnwantedError, PortionSender

from . import inheritance, program_settings, replica
from .changed_attributes import merged
from .channel import Channel
from .freed_memory import FreedMemory
from .item_slots import ItemReader, PlacedItem
from .logs import Outlet
from .messages import YIELDED, Broken, Jobs, Load, Ready, Results, Stop, Trim
from .status import StatusPage

_FLUSH_NS = 8_000_000
_DETAILED_NS = 1_000_000  # a job that takes longer is reported in detail
_FREE_MEMORY_AFTER_S = 2  # after this long without a message, memory kept for later jobs is freed
_NOW_AND_THEN_NS = 5_000_000  # shorter jobs are reported in detail at most once in this time


class Worker:
    """The main loop and the state of a worker process. Runs in: worker.

    Args:
        channel: the worker's connection with the consumer.
        page: the shared memory in which the worker notes its current job.
        number: the worker's number, from 0, which :func:`workers.current_job` reports.
    """

    def __init__(self, channel: Channel, page: StatusPage, number: int) -> None:
        self._channel = channel
        self._outlet = Outlet(channel, number)  # sends all messages
        self._page = page
        self._number = number
        self._pid = os.getpid()
        self._task: Any = None  # the replica
        self._replica = -1  # the number of the replica; -1 if there is none
        self._stream = seeding.Stream(0)
        self._writer = SlotWriter()
        self._portions = PortionSender(self._yielded, EVERY_NS)
        self._item_slots = ItemReader()
        self._unsettled: program_settings.Settings = {}  # settings of modules that are not loaded yet
        self._rows: list[tuple[int, int, Any]] = []  # results that are not sent yet
        self._details: list[tuple[int, int, Any]] = []  # details on some of these results
        self._freed = FreedMemory()
        self._cores = Cores()
        self._used = self._cores.use()  # the use of cores until the last report
        self._busy_ns = 0  # the run time of jobs since the last report
        self._lock = LockProbe()
        self._detailed_ns = 0  # when a job was last reported in detail
        self._flushed_ns = 0

    def run(self) -> None:
        """Receive jobs, run them and send their results. Blocks: until the consumer sends Stop or is gone."""
        slot_writer.writer = self._writer
        self._channel.wake_after(_FREE_MEMORY_AFTER_S)
        self._outlet.install()
        try:
            self._run()
        except IntegrityError as error:
            self._outlet.send(Broken(pack(error)))

    def _run(self) -> None:
        while True:
            received = self._channel.receive()
            if not received and self._channel.is_idle and self._freed.free_when_idle():
                self._writer.give_up_free()
                self._flush()
            for message, files in received:
                if isinstance(message, Jobs):
                    self._jobs(message, files)
                elif isinstance(message, Load):
                    self._load(message, files)
                elif isinstance(message, Trim):
                    self._trim(message)
                elif isinstance(message, Stop):
                    return

    def _load(self, message: Load, files: list[int]) -> None:
        failure = None
        before, self._replica = self._replica, -1  # no job may run until the new replica is complete
        try:
            if self._task is None:
                program_settings.before_imports(message.settings)
            inheritance.inherit(message.key, files.pop() if message.has_tracker else None)
            is_new, task = self._task is None, replica.load(message.parcel, files)
            is_next = before == message.replica - 1  # message.changed tells the differences from that replica
            is_part = is_next and message.changed is not None
            self._task = merged(self._task, task, message.changed) if is_part else task
            if is_new:
                self._unsettled = program_settings.apply(message.settings)
                self._task.init_worker(self._number)
                self._end_if_forked()
                self._used = self._cores.use()  # so that the worker's start is not counted
            self._stream = self._task.stream(self._task.generators())
            self._replica = message.replica
        except BaseException as error:  # the user's code may raise anything
            self._end_if_forked(error)
            failure = pack(error)
        self._outlet.send(Ready(failure))

    def _jobs(self, message: Jobs, files: list[int]) -> None:
        self._writer.release(message.free)
        self._flushed_ns = time.monotonic_ns()
        self._item_slots.learn(message.slots, message.gone, files)
        for plain in message.rows:
            row = JobRow._make(plain)
            if self._page.begin(row.sending):
                result = self._job(row, message.replica)
                self._rows.append(result)  # to the list of now: _yielded() replaces it
                is_late = time.monotonic_ns() - self._flushed_ns > _FLUSH_NS
                if is_late or self._writer.num_new_slots >= MAX_SLOTS:  # each slot costs a descriptor at both ends
                    self._flush()
            else:
                self._rows.append((row.sending, 0, None))
        if self._rows:
            self._flush()
        self._page.show_idle()
        if self._freed.is_due(self._flushed_ns):
            self._freed.look(time.monotonic_ns())

    def _trim(self, message: Trim) -> None:
        self._writer.release(message.free)
        self._writer.give_up_free()
        self._freed.give_back()
        self._flush(answers_trim=True)

    def _job(self, row: JobRow, replica: int) -> tuple[int, int, Any]:
        """Run the job ``row`` on replica number ``replica``, and return its result as a row for a Results message.

        The row is (number of the job, its duration in ns, its failure or the position of its batch in shared memory).
        """
        start = time.monotonic_ns()
        self._lock.job = row.sending
        marks = begin_marks()
        writer = self._writer
        placed, is_unwanted = None, False
        try:
            if replica != self._replica:
                check_replica(self._replica, replica, row.epoch, row.index)
            job = seeding.Job(row.epoch, row.index, row.attempt, self._number)
            payload = None
            if row.payload is not None:
                self._enter(job)
                payload = (self._item(row.payload),)
            portions = self._portions
            portions.num_sent, portions.is_used = 0, False
            result = seeding.run_seeded(
                self._stream,
                lambda: self._enter(job),
                lambda: with_notes(self._task.run, row.index, payload, portions),
            )
            self._end_if_forked()
            mark("transport")
            try:
                placed = writer.write(result, row.sending)
            except Exception:
                if portions.is_used:  # those before an item that cannot be sent
                    portions.send_seeded([item for item in result if type(item) is not Notes])
                raise
            del result
        except JobUnwantedError:
            is_unwanted = True
        except BaseException as error:  # also SystemExit: the consumer handles it
            self._end_if_forked(error)
            failure = pack(error)
        finally:
            seeding.leave_job()
        if writer.used_empty:
            writer.end_job(placed.slots if placed else [])
        end = time.monotonic_ns()
        job_ns = end - start
        self._busy_ns += job_ns
        self._lock.job = 0
        if self._number == 0:
            self._lock.ran(job_ns)
        if is_unwanted:
            return row.sending, 0, None
        if job_ns > _DETAILED_NS or end - self._detailed_ns > _NOW_AND_THEN_NS:
            self._details.append((row.sending, start, stages(marks, end)))
            self._detailed_ns = end
        return row.sending, job_ns, failure if placed is None else tuple(placed)

    def _yielded(self, items: list[Any]) -> None:
        """Send some items of the job that runs."""
        self._end_if_forked()
        sending = self._lock.job
        if self._page.is_unwanted(sending):
            raise JobUnwantedError
        placed = self._writer.write(items, sending)
        items.clear()
        if self._writer.used_empty:
            self._writer.end_job(placed.slots)
        self._rows.append((sending, YIELDED, tuple(placed)))
        self._flush()

    def _enter(self, job: seeding.Job) -> None:
        if self._unsettled:
            self._unsettled = program_settings.settle(self._unsettled)
        seeding.enter_job(self._stream, job)

    def _item(self, payload: Any) -> Any:
        """Return the stream item that a job works on. ``payload``: the item's pickle, or its place in shared memory."""
        return pickle.loads(payload) if type(payload) is bytes else self._item_slots.read(PlacedItem._make(payload))

    def _end_if_forked(self, error: BaseException | None = None) -> None:
        """Exit if this process is a fork of the worker, made by a job: only the worker itself may send results.

        ``error``: the exception that has ended the job in the fork, if any. The exit code depends on it.
        """
        if os.getpid() != self._pid:
            os._exit(exit_code(error))

    def _flush(self, answers_trim: bool = False) -> None:
        news = self._writer.take_news()
        rows, self._rows = self._rows, []
        details, self._details = self._details, []
        use = self._use() if details else None
        results = Results(news.slots, news.gone, news.forgets, news.layouts, rows, details, use, answers_trim)
        self._outlet.send(results, news.descriptors)
        for file in news.descriptors:
            os.close(file)
        self._flushed_ns = time.monotonic_ns()

    def _use(self) -> tuple[int, ...]:
        """Return the use of cores and of the interpreter lock since the last report, for :attr:`Results.cores`."""
        before, self._used = self._used, self._cores.use()
        busy_ns, self._busy_ns = self._busy_ns, 0
        return (*self._used.since(before), busy_ns, *self._lock.news())


def main(sock: socket.socket, page_descriptor: int, number: int) -> None:
    """Run worker ``number`` until the consumer no longer needs it, then exit. Runs in: a fork of the server.

    Args:
        sock: the worker's connection with the consumer.
        page_descriptor: the descriptor of the shared memory in which the worker notes its current job.
    """
    code, pid = 0, os.getpid()
    try:
        seeding.enter_worker_process()
        page = StatusPage(page_descriptor)
        page.catch_crashes()
        channel = Channel(sock)
        os.register_at_fork(after_in_child=channel.close)  # a fork must not read or answer the worker's messages
        Worker(channel, page, number).run()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the consumer is gone, or no longer needs this worker
    except BaseException as error:
        code = 1
        if isinstance(error, OSError) and error.errno in (errno.EBADF, errno.ENOTSOCK):
            page.lose_descriptors()  # a job has closed descriptors that were not its own
        elif os.getpid() == pid:
            import traceback

            traceback.print_exc()
    finally:
        if os.getpid() != pid:  # this is a fork, made by the user's code
            os._exit(code)
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()  # the exit functions of the user's modules, e.g. to remove temporary files
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def die_with_parent(parent: int) -> None:
    """Make the kernel kill this worker as soon as the server, process ``parent``, dies. Only Linux can do this."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:  # the server has died before this call
            os._exit(1)
