"""What ends with workers that have had nothing to do, and what those that start after them find."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from typing import Any

import pytest
from faulty import wait_for, worker_processes

from workers import Sequence, SequenceMap, prefetch
from workers.engine import idle_shutdown
from workers.process import graceful_exit

log = logging.getLogger("tests.of.waking")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The minute."""
    monkeypatch.setattr(idle_shutdown, "IDLE_S", 0.2)


def wait_until_at_rest(batches: SequenceMap) -> None:
    engine: Any = batches._live.pool.engine  # type: ignore[union-attr]
    wait_for(lambda: engine._driver._idle_shutdown.has_ended_workers and not worker_processes())


class Numbers(Sequence):
    """Batches of (index, process that has made it, what ``init`` was called with there, ``scale``)."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        self.scale = 1

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return index, os.getpid(), list(inits), self.scale


inits: list[int] = []


def init(worker: int) -> None:
    inits.append(worker)


def test_worker_init_fn_is_called_in_each_process() -> None:
    processes = set()
    with prefetch(Numbers(), nb_workers=2, max_queue_size=2, worker_init_fn=init) as batches:
        for index, pid, called, _ in batches:
            assert len(called) == 1
            processes.add(pid)
            if index in (3, 7):
                wait_until_at_rest(batches)
    assert len(processes) >= 3


def test_the_sequence_is_changed_meanwhile() -> None:
    """Though there are no workers to be told, nor any batches that are new."""
    seq = Numbers()
    with seq.prefetch(nb_workers=2) as batches:
        assert [scale for *_, scale in batches] == [1] * 12
        for scale in (2, 3):
            wait_until_at_rest(batches)
            seq.scale = scale
            assert [scale for *_, scale in batches] == [scale] * 12


def logs_at_the_end(worker: int) -> None:
    def tell() -> None:
        log.info("worker %d, from a thread", worker)

    def end() -> None:
        log.info("worker %d ends", worker)
        thread = threading.Thread(target=tell)  # whose records wait for the main thread to send them
        thread.start()
        thread.join()

    atexit.register(end)
    log.info("worker %d begins", worker)


def test_what_is_logged_at_the_end(caplog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graceful_exit, "_GRACE_S", 30.0)  # nobody is too slow to say it
    caplog.set_level(logging.INFO)
    with prefetch(Numbers(), nb_workers=2, max_queue_size=2, worker_init_fn=logs_at_the_end) as batches:
        for _ in range(2):
            wait_until_at_rest(batches)
            list(batches)
        wait_until_at_rest(batches)
    texts = [record.getMessage() for record in caplog.records if record.name == log.name]
    begun = sorted(text.removesuffix(" begins") for text in texts if text.endswith("begins"))
    assert len(begun) >= 6
    for what in (" ends", ", from a thread"):
        assert sorted(text.removesuffix(what) for text in texts if text.endswith(what)) == begun


def test_the_program_forks_meanwhile() -> None:
    """Its child holds copies of all that is open."""
    with Numbers().prefetch(nb_workers=2, max_queue_size=2) as batches:
        loop = iter(batches)
        got = [next(loop)[0]]
        held, release = os.pipe()
        children = []
        for has_ended_workers in (False, True):
            if has_ended_workers:
                wait_until_at_rest(batches)
            child = os.fork()
            if child == 0:
                os.close(release)
                os.read(held, 1)
                os._exit(0)
            children.append(child)
        got += [index for index, *_ in loop]
        wait_until_at_rest(batches)
    os.close(release)
    os.close(held)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    assert got == list(range(12))
