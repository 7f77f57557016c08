"""Processes end at the wrong moment: workers, their server, the consumer."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from typing import Any

import psutil
import pytest
from faulty import LENGTH, PATIENCE_S, Faulty, is_gone, same, servers, undisturbed, wait_for, worker_processes

from workers import ClosedError, Sequence, prefetch

pytestmark = pytest.mark.own_server


def expected() -> list[Any]:
    return undisturbed()[0]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_idle_workers_are_killed(number: int) -> None:
    """All of them, while nothing is to be done: the next epoch arrives whole."""
    with Faulty("").prefetch(nb_workers=2) as batches:
        assert len(list(batches)) == LENGTH
        for process in worker_processes():
            process.send_signal(number)
        assert [batch[:2] for batch in batches] == [(index, 1) for index in range(LENGTH)]


def test_workers_are_killed_again_and_again() -> None:
    """While they send, compute or wait: all batches arrive, in order, with the same bytes."""
    with Faulty("").prefetch(nb_workers=2, max_queue_size=6) as batches:
        for at, (got, wanted) in enumerate(zip(batches, expected(), strict=True)):
            assert same(got, wanted)
            if at % 4 == 0:
                for process in worker_processes():
                    with contextlib.suppress(psutil.NoSuchProcess):  # of the kill before, and only now reaped
                        process.kill()


def test_the_server_is_killed() -> None:
    """Its workers die with it; all start anew."""
    with Faulty("").prefetch(nb_workers=2, max_queue_size=6) as batches:
        for at, (got, wanted) in enumerate(zip(batches, expected(), strict=True)):
            assert same(got, wanted)
            if at in (3, 20):
                for server in servers():
                    server.kill()


def test_a_stopped_worker_is_ended_by_close() -> None:
    """SIGSTOP holds a worker, not the end of the program."""
    with Faulty("").prefetch(nb_workers=2) as batches:
        next(iter(batches))
        for process in worker_processes():
            process.suspend()


def test_workers_are_killed_during_close() -> None:
    batches = Faulty("").prefetch(nb_workers=3)
    next(iter(batches))
    doomed = worker_processes()
    thread = threading.Thread(target=batches.close)
    thread.start()
    for process in doomed:
        with contextlib.suppress(psutil.NoSuchProcess):  # it was faster
            process.kill()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    with pytest.raises(ClosedError):
        next(batches)


def test_break_then_a_full_epoch() -> None:
    """break ends an epoch; the next one is whole, and nothing of the old one is in it."""
    with Faulty("").prefetch(nb_workers=2) as batches:
        for stop_at in (0, 5, LENGTH - 1):
            for batch in batches:
                if batch[0] == stop_at:
                    break
        assert [batch[:2] for batch in batches] == [(index, 3) for index in range(LENGTH)]


def test_two_front_ends_at_once() -> None:
    """Each has workers of its own."""
    with Faulty("").prefetch(nb_workers=2) as one, Faulty("SIGKILL").prefetch(nb_workers=2) as two:
        assert all(map(same, one, two))


class Slow(Sequence):
    """Each batch takes a while, unless it is number 0."""

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> int:
        if index > 3:
            time.sleep(30)
        return index


def test_close_does_not_wait_for_jobs() -> None:
    """Workers that are in a job are killed."""
    with Slow(seed=1).prefetch(nb_workers=2) as batches:
        next(iter(batches))


def test_end_of_scope() -> None:
    """A front-end that nobody holds any more ends its workers. (The police looks.)"""

    def scope() -> None:
        batches = Faulty("").prefetch(nb_workers=2)
        next(iter(batches))

    scope()


def test_a_fork_of_the_consumer_harms_nobody() -> None:
    """The child of an os.fork() may drop the front-end, and cannot use it."""
    with Faulty("").prefetch(nb_workers=2) as batches:
        iterator = iter(batches)
        next(iterator)
        wait_for(lambda: not batches.has_background_jobs())  # the fork finds batches that are ready
        child = os.fork()
        if child == 0:
            status = 1
            try:
                next(iterator)
            except RuntimeError:
                status = 0
            batches.close()
            os._exit(status)
        _, status = os.waitpid(child, 0)
        assert status == 0
        assert len(list(iterator)) == LENGTH - 1  # the rest


def test_a_job_may_fork() -> None:
    """What a job leaves running ends with the workers."""

    def start_sleeper(batch: Any) -> int:
        return subprocess.Popen(["sleep", "600"]).pid

    with prefetch(list(range(4)), 2).map(start_sleeper) as batches:
        pids = list(batches)
    wait_for(lambda: all(map(is_gone, pids)))
