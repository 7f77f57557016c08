"""The server is stopped (SIGSTOP): nobody waits for it without a bound."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest
from faulty import is_gone, servers, wait_for, worker_processes

from workers import Sequence, current_job, prefetch
from workers.process import server_handle, worker_pool
from workers.process.worker_pool import SILENT_S, STOPPED_S, Unanswered

pytestmark = pytest.mark.own_server

LENGTH = 60


class Numbers(Sequence[int]):
    """With ``stuck``, the first attempt at this batch does not end."""

    def __init__(self, stuck: int = -1) -> None:
        super().__init__(seed=1)
        self.stuck = stuck

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> int:
        while index == self.stuck and current_job().attempt == 0:
            time.sleep(0.01)
        return index


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "STOPPED_S", 0.3)
    monkeypatch.setattr(server_handle, "_END_S", 0.5)


def stop() -> Any:
    (server,) = servers()
    server.send_signal(signal.SIGSTOP)
    return server


@pytest.mark.parametrize(("nb_workers", "num_killed"), [(1, 1), (2, 1), (2, 2)])
def test_a_worker_dies(nb_workers: int, num_killed: int, caplog: Any) -> None:
    with prefetch(Numbers(), nb_workers, max_queue_size=4) as batches:
        iterator = iter(batches)
        got = [next(iterator) for _ in range(3)]
        server = stop()
        for worker in worker_processes()[:num_killed]:
            worker.kill()
        got += iterator
        assert got == list(range(LENGTH))
        # One worker may do all that is left before the other one is missed.
        while [each.pid for each in servers()] == [server.pid]:
            assert list(batches) == got
    assert f"the server of the workers (process {server.pid}, its state is 'stopped') has not answered" in caplog.text


def test_a_job_that_does_not_end() -> None:
    """It is to be killed by the server, which does not."""
    with prefetch(Numbers(stuck=20), 1, job_timeout=0.2, max_queue_size=4) as batches:
        iterator = iter(batches)
        got = [next(iterator) for _ in range(3)]
        stop()
        assert got + list(iterator) == list(range(LENGTH))


def test_another_pool_has_the_same_server() -> None:
    """Its workers are never forked."""
    with prefetch(Numbers(), 1) as first:
        iterator = iter(first)
        next(iterator)
        stop()
        with prefetch(Numbers(), 2) as second:
            assert list(second) == list(range(LENGTH))
        assert list(iterator) == list(range(1, LENGTH))


def test_the_end() -> None:
    with prefetch(Numbers(), 2) as batches:
        next(iter(batches))
        server = stop()
    wait_for(lambda: is_gone(server.pid))


def test_how_long_it_may_be_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "STOPPED_S", STOPPED_S)
    now = 100.0
    monkeypatch.setattr(worker_pool.time, "monotonic", lambda: now)
    asked = Unanswered()
    assert not asked
    assert asked.left_s(None) is None
    asked.ask("fork", 1)
    asked.ask("end", 1)
    assert (asked.left_s(None), asked.left_s(1.0)) == (STOPPED_S, 1.0)
    for after_s, is_stopped, is_preloaded, expected in [
        (STOPPED_S - 1, True, True, None),
        (STOPPED_S + 1, False, True, None),
        (STOPPED_S + 1, True, True, STOPPED_S + 1),
        (STOPPED_S + 1, True, False, STOPPED_S + 1),
        (SILENT_S + 1, False, True, SILENT_S + 1),
        (10 * SILENT_S, False, False, None),  # it is at its imports
    ]:
        now = 100.0 + after_s
        assert asked.overdue_s(lambda is_stopped=is_stopped: is_stopped, is_preloaded) == expected
    asked.heard()
    assert asked.overdue_s(lambda: True, True) is None
    asked.answer("fork", worker=1)
    assert asked
    asked.answer("fork", "end", worker=1)
    assert not asked
