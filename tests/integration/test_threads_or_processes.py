"""``executor="auto"``: threads or processes, whichever deliver more; the batches are the same."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from faulty import read
from scripted import Aside, at_random, expected, have, plain, scripted

from workers import Sequence, SequenceMap, current_rng, prefetch
from workers.engine.chooser import Kind

LENGTH = 60


class Quiet(Sequence[Any]):
    """Draws from the job's own generator only."""

    def __init__(self) -> None:
        super().__init__(seed=7)
        self.noted = 0

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        rng = current_rng()
        return (rng.random(20), rng.random(3), float(rng.random())), index, self.noted


class Hooked(Quiet):
    def on_epoch_end(self) -> None:
        self.noted += 1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("source", [Quiet, Hooked])
def test_the_same_batches_of_any_kind(source: type[Quiet], seed: int) -> None:
    draw = random.Random(seed)
    kinds: list[Kind] = []

    def kind() -> Kind:
        kinds.append(draw.choice(["process", "thread"]))
        return kinds[-1]

    with source().prefetch(executor="auto") as batches:
        scripted(batches, at_random(seed), kind)
        got = []
        for _ in range(5):
            for batch in batches:
                got.append(plain(batch))
                if len(got) in (20, 90):
                    have(batches, 2)
    assert got == expected(source, 5)
    assert set(kinds) == {"process", "thread"}


def test_an_error_while_the_kind_changes() -> None:
    class Failing(Quiet):
        def __getitem__(self, index: int) -> Any:
            if index % 10 == 3:
                raise ValueError(f"batch {index}")
            return super().__getitem__(index)

    kinds = iter(["thread", "process"] * 100)
    with Failing().prefetch(executor="auto") as batches:
        scripted(batches, at_random(1, 0.5), lambda: next(kinds))  # type: ignore[arg-type, return-value]
        got = [str(each) if isinstance(each, ValueError) else each[1] for each in read(batches)]
    assert got == [f"batch {index}" if index % 10 == 3 else index for index in range(LENGTH)]


class Waiting(Quiet):
    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.01)
        return Aside(threading.current_thread() is not threading.main_thread()), super().__getitem__(index)[1]


def test_what_waits_has_threads_at_once() -> None:
    with Waiting().prefetch(executor="auto") as batches:
        got = list(batches)
        report = batches.report()
    assert [batch[1] for batch in got] == list(range(200))
    assert " thread" in report.choices[0], report.choices
    assert any(batch[0].value for batch in got)
    assert not got[0][0].value


class Global(Waiting):
    def __getitem__(self, index: int) -> Any:
        return np.random.random(), random.random(), *super().__getitem__(index)


class Held(Waiting):
    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(1)

    def __getitem__(self, index: int) -> Any:
        return self.rng.random(), *super().__getitem__(index)


def of_keras() -> Any:
    from waiting_keras import Waiting

    return Waiting()


def test_keras_that_is_only_loaded_is_no_hindrance() -> None:
    keras = pytest.importorskip("keras")
    keras.random.uniform(())
    with Waiting().prefetch(executor="auto") as batches:
        assert [batch[1] for batch in batches] == list(range(200))
        assert " thread" in batches.report().choices[0]


@pytest.mark.parametrize("kind", [Global, Held, pytest.param(of_keras, marks=pytest.mark.needs("keras"))])
def test_what_draws_from_shared_generators_has_none(kind: Callable[[], Sequence[Any]]) -> None:
    with kind().prefetch(nb_workers=0) as batches:
        wanted = [batch[:-2] for batch in batches]
    with kind().prefetch(executor="auto") as batches:
        assert [batch[:-2] for batch in batches] == wanted
        assert batches.report().choices
        assert not any("thread" in choice for choice in batches.report().choices)


@pytest.mark.parametrize("options", [{"job_timeout": 60.0}, {"in_order": False}, {"worker_init_fn": print}])
def test_what_only_processes_can_do(options: dict[str, Any]) -> None:
    with prefetch(list(range(20)), executor="auto", **options) as batches:
        assert sorted(batches) == list(range(20))
        assert batches.report().executor == "process"


def test_what_is_made_of_it() -> None:
    with prefetch(list(range(LENGTH)), executor="auto").batch(4) as batches:
        assert batches.executor == "auto"
        assert [batch.tolist() for batch in batches] == [list(range(at, at + 4)) for at in range(0, LENGTH, 4)]


def test_a_number_of_workers_is_of_one_kind() -> None:
    with pytest.raises(ValueError, match='executor="auto" goes with nb_workers="auto", not 2'):
        SequenceMap(Quiet(), 2, None, executor="auto")
    with pytest.raises(ValueError, match="executor"):
        SequenceMap(Quiet(), 2, None, executor="processes")  # type: ignore[arg-type]


def test_the_kind_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "workers"), Quiet().prefetch(executor="auto") as batches:
        scripted(batches, lambda look: None, lambda: "thread")
        batches._live.pool.engine.chooser.kind = "thread"  # type: ignore[union-attr]
        have(batches, 2)
        list(batches)
        assert batches.report().executor == "thread"
        assert "2 (thread)" in str(batches.report())
