"""A pass ends when the next one begins: whoever still reads it is told so, and the new one loses nothing by it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from workers import Sequence, SequenceMap, StalePassError
from workers.engine.engine import Engine
from workers.engine.schedule import Schedule
from workers.engine.threads import ThreadExecutor
from workers.job.task import Task
from workers.loader.options import Options
from workers.report.pool import PoolFigures

LENGTH = 8


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(
        ThreadExecutor(Task(range(1000), (), 0), 2, PoolFigures()),
        Schedule(2, keeps_failed=True),
        Options(debug_job_report_timeout=None),
    )
    yield engine
    engine.close()


def test_an_old_pass_touches_nothing_of_the_new_one(engine: Engine) -> None:
    """Its jobs may have indices that the new one has, or has not."""
    for order in (range(4), range(100, 104)):
        old = engine.begin(0, 4, False, None, None, range(4))
        assert old.peek(0).value == [0]
        new = engine.begin(0, 4, False, None, None, order)
        old.forget(2)
        old.drop(0)
        with pytest.raises(StalePassError):
            old.repeat(2, 1)
        got = []
        for number in range(4):
            got += new.peek(number).value
            old.drop(number + 1)
            new.drop(number)
        assert got == list(order)
        assert not old.outcomes  # it may be kept for long, but not the batches
        with pytest.raises(StalePassError):
            old.peek(5)


class Waits(Sequence):
    """Job 3 takes until the test is over."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        self.may_end = threading.Event()
        self.is_waiting = threading.Event()

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        if index == 3 and self.epoch == 0:
            self.is_waiting.set()
            self.may_end.wait(100.0)
        return (self.epoch, index)


def test_another_thread_begins_a_pass() -> None:
    """Who waits for a batch of the one before is told, at once and not when that comes."""
    waits = Waits()
    got: list[Any] = []

    def read(loop: Any) -> None:
        try:
            got.extend(iter(lambda: next(loop), None))
        except StalePassError as error:
            got.append(str(error))

    with SequenceMap(waits, 3, executor="thread") as batches:
        reader = threading.Thread(target=read, args=[iter(batches)])
        reader.start()
        assert waits.is_waiting.wait(100.0)
        while batches._live.current is None or batches._live.current.num_taken < 3:  # then it waits
            time.sleep(0.001)
        batches.epoch = 1
        assert list(batches) == [(1, index) for index in range(LENGTH)]
        reader.join(100.0)
        assert got[-1].startswith("this iterator is over: ")
        waits.may_end.set()


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("executor", ["thread", "process"])
def test_the_engine_ends_with_batches_left(executor: str, in_order: bool) -> None:
    """They are delivered; then comes what has ended it."""

    def poll(timeout_s: float | None) -> Any:
        raise MemoryError("for the test")

    with SequenceMap(range(1000), 2, executor=executor, max_queue_size=4, in_order=in_order, seed=1) as batches:
        loop = iter(batches)
        got = [next(loop)]
        engine = batches._live.pool.engine  # type: ignore[union-attr]
        assert isinstance(engine, Engine)
        while len(engine.handover.outcomes) < 4:
            time.sleep(0.001)
        engine.executor.poll = poll  # type: ignore[method-assign]
        with pytest.raises(MemoryError, match="for the test"):
            got.extend(iter(lambda: next(loop), None))
        assert len(got) >= 5
        assert sorted(got) == list(range(len(got)))
        state = batches.state_dict()
    with SequenceMap(range(1000), 2, executor=executor, in_order=in_order, seed=1) as others:
        others.load_state_dict(state)
        assert sorted([*got, *others]) == list(range(1000))
