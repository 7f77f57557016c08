"""A worker process: takes jobs from its socket, computes them on its replica of the Sequence, sends what came out.

Its life: ``LOAD`` (the replica), then ``JOBS`` again and again, until ``STOP`` or the end of file. Results of short
jobs are sent together, at the latest ``_FLUSH_NS`` after the first of them or when nothing is left to do.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import pickle
import signal
import socket
import sys
import time
from typing import Any

import numpy as np

from workers.batch import slots
from workers.engine.remote_errors import exit_code, pack
from workers.job import seeding

from . import replica
from .board import Board
from .channel import Channel
from .messages import DONE, FAILED, JOBS, LOAD, READY, RESULTS, STOP

_FLUSH_NS = 2_000_000
_writer: slots.SlotWriter | None = None


def empty(shape: int | tuple[int, ...], dtype: Any = float) -> np.ndarray[Any, Any]:
    """An uninitialised array that already lies where the batch will be delivered from.

    Inside a job in a worker process, an array that is made so, filled and returned (as it is, or as part of a
    batch) reaches the consumer without being copied. Anywhere else this is ``numpy.empty``.

    Args:
        shape: lengths of its axes.
        dtype: as for ``numpy.empty``.

    Returns:
        An array in C order.
    """
    if _writer is None or seeding.current_job() is None:
        return np.empty(shape, dtype)
    return _writer.empty(shape, dtype)


class Worker:
    """Runs in: worker. ``number`` names it to the user's code (:func:`workers.current_job`)."""

    def __init__(self, channel: Channel, board: Board, number: int) -> None:
        self._channel = channel
        self._board = board
        self._number = number
        self._pid = os.getpid()
        self._task: Any = None  # the replica
        self._stream = seeding.Stream(0)
        self._writer = slots.SlotWriter()
        self._rows: list[tuple[Any, ...]] = []  # results not yet sent
        self._flushed_ns = 0

    def run(self) -> None:
        """Blocks: until the consumer says STOP or is gone."""
        global _writer
        _writer = self._writer
        while True:
            for message, files in self._channel.receive():
                if message[0] == JOBS:
                    self._jobs(message[1], message[2], files)
                elif message[0] == LOAD:
                    self._load(message[1], files)
                elif message[0] == STOP:
                    return

    def _load(self, parcel: Any, files: list[int]) -> None:
        failure = None
        try:
            self._task = replica.load(parcel, files)
            self._stream = seeding.Stream(self._task.seed, self._task.generators())
        except BaseException as error:  # the user's own modules run here
            failure = pack(error)
        self._channel.send((READY, failure))

    def _jobs(self, rows: list[tuple[Any, ...]], free: list[int], files: list[int]) -> None:
        self._writer.release(free, keep=len(rows) + 2)
        self._flushed_ns = time.monotonic_ns()
        if rows[0][4] is not None:  # all jobs of a pass bring what they work on, or none
            rows = _with_files(rows, files)
        for row in rows:
            if self._board.begin(row[0]):
                self._rows.append(self._job(*row))
                if time.monotonic_ns() - self._flushed_ns > _FLUSH_NS:
                    self._flush()
        if self._rows:
            self._flush()
        self._board.rest()

    def _job(self, serial: int, epoch: int, index: int, attempt: int, payload: Any) -> tuple[Any, ...]:
        start = time.monotonic_ns()
        writer = self._writer
        written = None
        try:
            job = seeding.Job(epoch, index, attempt, self._number)
            if payload is not None:
                seeding.enter_job(self._stream, job)
                payload = (_unpack(payload),)
            result = seeding.run_seeded(
                self._stream, lambda: seeding.enter_job(self._stream, job), lambda: self._task.run(index, payload)
            )
            self._end_if_forked()
            written = writer.write(result)
            del result
        except BaseException as error:  # also what would end this process: it is the consumer's to know
            self._end_if_forked(error)
            failure = pack(error)
        finally:
            seeding.leave_job()
        if writer.used_empty:
            writer.end_job(written[1] if written else [])
        ns = time.monotonic_ns() - start
        if written is None:
            return serial, FAILED, failure, ns
        return serial, DONE, *written, ns

    def _end_if_forked(self, error: BaseException | None = None) -> None:
        """The user's code has forked, and its child has come back here: it must not write where this worker does."""
        if os.getpid() != self._pid:
            os._exit(exit_code(error))

    def _flush(self) -> None:
        new_slots, gone, files, layouts = self._writer.take_news()
        rows, self._rows = self._rows, []
        self._channel.send((RESULTS, new_slots, gone, layouts, rows), files)
        for file in files:
            os.close(file)
        self._flushed_ns = time.monotonic_ns()


def _with_files(rows: list[tuple[Any, ...]], files: list[int]) -> list[tuple[Any, ...]]:
    left = iter(files)
    return [(*row[:4], row[4] if isinstance(row[4], bytes) else (row[4], [next(left)])) for row in rows]


def _unpack(payload: Any) -> Any:
    if isinstance(payload, bytes):
        return pickle.loads(payload)
    parcel, files = payload
    return replica.load(parcel, files, writable=True)


def main(sock: socket.socket, board_descriptor: int, number: int) -> None:
    """Be a worker until the consumer is done with it; then end this process. Runs in: a fork of the server."""
    code, pid = 0, os.getpid()
    try:
        seeding.enter_worker_process()
        board = Board(board_descriptor)
        board.catch_crashes()
        channel = Channel(sock)
        os.register_at_fork(after_in_child=channel.close)  # nobody else may take our messages, or answer
        Worker(channel, board, number).run()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the consumer is gone, or has no use for this worker any more
    except BaseException:
        code = 1
        if os.getpid() == pid:
            import traceback

            traceback.print_exc()
    finally:
        if os.getpid() != pid:  # a child that the user's code has forked, and that has come back here
            os._exit(code)
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()  # of the user's modules: temporary files and the like
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def keep_freed_memory() -> None:
    """Have malloc keep what is freed, where it is glibc's: a fresh array of a batch's size then lies on pages that
    are there already, instead of costing a page fault for each 4 KB."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        trim_threshold, top_pad, mmap_max = -1, -2, -4
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(top_pad, 16 << 20)


def die_with_parent(parent: int) -> None:
    """Be killed when the server is (Linux); ``parent`` is its process id."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)
