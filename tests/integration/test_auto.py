"""``nb_workers="auto"``: whoever computes a batch, and whenever that changes, it is the same."""

from __future__ import annotations

import decimal
import gc
import logging
import os
import random
import threading
import time
import weakref
from typing import Any

import numpy as np
import pytest
from faulty import read
from scripted import LENGTH, Drawn, at_random, expected, have, plain, scripted, until_ready

from workers import Sequence, SequenceMap, current_job, current_rng, prefetch
from workers.engine.auto_reading import Phase
from workers.engine.comparison import difference
from workers.report.timeline import LOOP

HERE = os.getpid()


class Hooked(Drawn):
    def on_epoch_end(self) -> None:
        self.noted += 1
        self.array[:] += 1


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", [Drawn, Hooked])
def test_the_same_batches_whoever_computes_them(kind: type[Drawn], seed: int) -> None:
    epochs = 5
    with kind().prefetch(nb_workers="auto") as batches:
        chosen = scripted(batches, at_random(seed))
        got = []
        for _ in range(epochs):
            for batch in batches:
                got.append(plain(batch))
                if len(got) == 20:
                    have(batches, 2)
    assert got == expected(kind, epochs)
    assert len(set(chosen)) > 1


@pytest.mark.parametrize("seed", range(4))
def test_going_on_from_a_state(seed: int) -> None:
    with Drawn().prefetch() as batches:
        scripted(batches, at_random(seed, 0.3))
        loop, got = iter(batches), []
        got += [plain(next(loop)) for _ in range(25)]
        state = batches.state_dict()
    with Drawn().prefetch() as batches:
        scripted(batches, at_random(seed + 1, 0.3))
        batches.load_state_dict(state)
        got += [plain(batch) for batch in batches]
        got += [plain(batch) for batch in batches]
    assert got == expected(Drawn, 2)


@pytest.mark.parametrize("seed", range(3))
def test_a_loop_that_is_left(seed: int) -> None:
    draw = random.Random(seed)
    with Drawn().prefetch() as batches:
        scripted(batches, at_random(seed, 0.3))
        for epoch in range(6):
            stop = draw.randrange(LENGTH)
            got = [plain(batch) for _, batch in zip(range(stop), batches, strict=False)]
            assert got == expected(Drawn, 6)[epoch * LENGTH : epoch * LENGTH + stop], epoch
            if not stop:
                batches.epoch = epoch + 1


class Failing(Drawn):
    def __getitem__(self, index: int) -> Any:
        if index % 10 == 3:
            raise ValueError(f"batch {index}")
        return super().__getitem__(index)


@pytest.mark.parametrize("seed", range(3))
def test_errors_come_at_their_place(seed: int) -> None:
    with Failing().prefetch() as batches:
        scripted(batches, at_random(seed, 0.3))
        got = [str(each) if isinstance(each, ValueError) else each[1] for each in read(batches)]
    assert got == [f"batch {index}" if index % 10 == 3 else index for index in range(LENGTH)]


class Once(Drawn):
    """Fails the first time, wherever it runs."""

    def __getitem__(self, index: int) -> Any:
        job = current_job()
        if index % 7 == 3 and job is not None and not job.attempt:
            raise ValueError(f"batch {index}")
        return super().__getitem__(index)


@pytest.mark.parametrize("seed", range(3))
def test_what_fails_is_tried_again(seed: int) -> None:
    with Once().prefetch(on_error=lambda error: "retry") as batches:
        scripted(batches, at_random(seed, 0.3))
        got = [plain(batch) for _ in range(2) for batch in batches]
    assert got == expected(Drawn, 2)


@pytest.mark.parametrize("seed", range(3))
def test_a_chain(seed: int) -> None:
    def chain(nb_workers: Any) -> Any:
        shuffled = Drawn().shuffle().prefetch(nb_workers=nb_workers)
        return shuffled.map(lambda batch: [batch[1], -batch[1]]).batch(3)

    with chain(0) as batches:
        wanted = [batch.tolist() for _ in range(3) for batch in batches]
    with chain("auto") as batches:
        assert batches.nb_workers == "auto"
        scripted(batches, at_random(seed, 0.3))
        assert [batch.tolist() for _ in range(3) for batch in batches] == wanted


def test_it_begins_in_the_loop_and_then_has_workers() -> None:
    class Slow(Sequence[int]):
        def __len__(self) -> int:
            return 400

        def __getitem__(self, index: int) -> int:
            time.sleep(0.01)
            return index

    with Slow().prefetch() as batches:
        assert list(batches) == list(range(400))
        report = batches.report()
    spans = sorted(report.timeline.spans, key=lambda span: span.start_ns)
    assert spans[0].worker == LOOP
    assert spans[-1].worker != LOOP
    assert report.nb_workers >= 1
    assert "a job takes" in report.choices[0], report.choices
    assert any(each.kind == "chosen" for each in report.timeline.incidents)


def test_a_short_loop_starts_nothing() -> None:
    with Drawn(5).prefetch() as batches:
        for _ in range(3):
            assert len(list(batches)) == 5
        assert batches.report().nb_workers == 0
        assert batches._live.pool.engine.engine is None  # type: ignore[union-attr]


def test_what_cannot_be_sent_is_computed_in_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    class Held(Drawn):
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()

    with Held().prefetch() as batches:
        scripted(batches, lambda look: 2)
        assert [plain(batch) for batch in batches] == expected(Drawn, 1)
    assert "the batches are computed in the loop, without workers: the sequence.source.lock" in caplog.text


def test_what_a_job_has_opened_here_does_not_go_along(caplog: pytest.LogCaptureFixture) -> None:
    class Opened(Drawn):
        file: Any = None

        def __init__(self) -> None:
            super().__init__()
            self.other: Any = None

        def __getitem__(self, index: int) -> Any:
            if self.file is None:
                self.file, self.other = open(os.devnull), threading.Lock()  # noqa: SIM115
            return super().__getitem__(index)

    with Opened().prefetch() as batches:
        scripted(batches, lambda look: 2 if look > 3 else None)
        got = []
        for batch in batches:
            got.append(plain(batch))
            if len(got) == 10:
                until_ready(batches)
        assert batches.report().nb_workers == 2
        batches.source_split.file.close()  # type: ignore[attr-defined]
    assert got == expected(Drawn, 1)
    assert "can no longer be sent to worker processes" in caplog.text


def test_workers_that_cannot_load_it_are_not_used(caplog: pytest.LogCaptureFixture) -> None:
    class Unloadable(Drawn):
        def __setstate__(self, state: Any) -> None:
            raise LookupError("there is nothing to load")

    with Unloadable().prefetch() as batches:
        scripted(batches, lambda look: 1 if look == 3 else None)
        got = []
        for batch in batches:
            got.append(plain(batch))
            if len(got) == 10:
                auto: Any = batches._live.pool.engine  # type: ignore[union-attr]
                while not auto.engine.has_ended:
                    time.sleep(0.01)
        assert got == expected(Drawn, 1)
    assert "there is nothing to load" in caplog.text


@pytest.mark.parametrize("options", [{"job_timeout": 60.0}, {"in_order": False}, {"worker_init_fn": print}])
def test_what_only_workers_can_do_has_one_from_the_start(options: dict[str, Any]) -> None:
    with prefetch(list(range(20)), **options) as batches:
        assert sorted(batches) == list(range(20))
        assert batches.report().nb_workers >= 1


def test_workers_that_are_asked_for_along_the_chain_are_those() -> None:
    with SequenceMap(Drawn(), 2, None).prefetch() as batches:
        assert batches.nb_workers == 2
    with Drawn().prefetch() as batches:
        assert batches.nb_workers == "auto"
        assert batches.max_jobs_at_once is None
    with Drawn().prefetch(max_queue_size=8) as batches:
        assert (batches.max_jobs_at_once or 0) >= 1


@pytest.mark.parametrize("wrong", ["Auto", "", -1, 1.5, b"auto", True])
def test_other_values(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match='nb_workers must be an integer >= 0 or "auto", not'):
        Drawn().prefetch(nb_workers=wrong)


def test_it_goes_with_the_last_reference() -> None:
    batches = Drawn().prefetch()
    scripted(batches, lambda look: 2)
    loop = iter(batches)
    next(loop)
    until_ready(batches)
    list(loop)
    gone = weakref.ref(batches)
    del batches, loop
    gc.collect()
    assert gone() is None


def test_one_line_at_an_epochs_end(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "workers"), Drawn().prefetch(nb_workers=0) as batches:
        list(batches)
        list(batches)
    lines = [each.message for each in caplog.records if each.message.startswith("epoch ")]
    assert [line.split(" in ")[0] for line in lines] == ["epoch 0: 60 batches", "epoch 1: 60 batches"]
    assert "the loop waited" in lines[0]


def shuffled_batches(nb_workers: Any) -> Any:
    return Drawn().shuffle().prefetch(nb_workers=nb_workers)


def shuffled_samples(nb_workers: Any) -> Any:
    return prefetch(Samples(), nb_workers, batch_size=3, shuffle=True, seed=5)


def batches_shuffled(nb_workers: Any) -> Any:
    return SequenceMap(Samples(), nb_workers, None, seed=5).batch(3).shuffle()


def a_shard_of_shuffled(nb_workers: Any) -> Any:
    return Drawn(3 * LENGTH - 1).shuffle().shard(1, 3, "pad").prefetch(nb_workers=nb_workers)


def mapped(nb_workers: Any) -> Any:
    return Drawn().shuffle().map(lambda batch: batch, nb_workers)


def shuffled_twice(nb_workers: Any) -> Any:
    return Drawn().shuffle().shuffle().prefetch(nb_workers=nb_workers)


class Samples:
    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int) -> Any:
        return index, current_rng().random()


def as_text(batch: Any) -> str:
    return repr([part.tolist() if hasattr(part, "tolist") else part for part in batch])


@pytest.mark.parametrize(
    "chain",
    [shuffled_batches, shuffled_samples, batches_shuffled, a_shard_of_shuffled, mapped, shuffled_twice],
    ids=lambda chain: chain.__name__,
)
def test_orders_of_their_own(chain: Any) -> None:
    """Shuffled, and whoever computes a batch: what the loop gets is what it gets without workers. Also from a state."""
    with chain(0) as batches:
        wanted = [as_text(batch) for _ in range(3) for batch in batches]
    with chain("auto") as batches:
        chosen = scripted(batches, at_random(1, 0.3))
        got = []
        for batch in batches:
            got.append(as_text(batch))
            if len(got) == 10:
                have(batches, 2)
        loop = iter(batches)
        got += [as_text(next(loop)) for _ in range(7)]
        state = batches.state_dict()
    assert len(set(chosen)) > 1
    with chain("auto") as batches:
        batches.load_state_dict(state)
        scripted(batches, lambda look: 1 if look == 2 else None)
        for batch in batches:
            got.append(as_text(batch))
            if len(got) % 20 == 0:
                have(batches, 1)
        got += [as_text(batch) for batch in batches]
    assert got == wanted


# -- the batch that both compute


def told(executor: str, job: Any, caplog: pytest.LogCaptureFixture, length: int = 40, **options: Any) -> Any:
    """(the batches of two epochs, what the log says), where workers are wanted from the fourth batch on."""
    with prefetch(Called(job, length), executor=executor, **options) as batches:
        scripted(batches, lambda look: 2 if look == 3 else None)
        got = []
        for _ in range(2):
            for batch in batches:
                got.append(batch)
                if len(got) == 8 and batches._live.pool.engine.phase is not Phase.LOST:  # type: ignore[union-attr]
                    until_ready(batches)
        return got, [each.message for each in caplog.records if each.levelno >= logging.INFO and "seed" not in each.msg]


class Called:
    def __init__(self, job: Any, length: int) -> None:
        self.job, self.length = job, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.job(index)


@pytest.mark.parametrize(
    ("job", "leaf"),
    [
        (lambda index: np.full(3, index, np.float64 if os.getpid() == HERE else np.float32), "batch is float64 of"),
        (lambda index: {"x": [np.full(3, index + (os.getpid() == HERE))]}, "batch['x'][0][0] is"),
        (lambda index: (index, "here" if os.getpid() == HERE else "there"), "batch[1] is 'here' in the loop"),
        (lambda index: {"here" if os.getpid() == HERE else "there": 1}, "batch is a container with keys ['here'] in"),
        (lambda index: float(str(decimal.Decimal(1) / 3)[:5]) if os.getpid() == HERE else 0.3, "batch is 0.333 in"),
    ],
    ids=["dtype", "value", "text", "keys", "number"],
)
def test_workers_that_compute_other_batches_are_not_used(job: Any, leaf: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "workers"):
        got, log = told("process", job, caplog)
    assert len(got) == 80
    for number, batch in enumerate(got):
        assert difference(batch, job(number % 40)) is None, number
    (line,) = [each for each in log if not each.startswith("epoch ")]
    assert f", {leaf}" in line
    assert "worker_init_fn" in line


def test_batches_that_always_differ_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Such as what is drawn from the system's entropy: workers are used."""
    with caplog.at_level(logging.INFO, "workers"), prefetch(Called(lambda index: os.urandom(8), 40)) as batches:
        scripted(batches, lambda look: 1 if look == 0 else None)
        have(batches, 1)
        assert len(set(batches)) == 40
        assert batches.report().nb_workers == 1
    assert "is different each time" in caplog.text


class FailsThere(Called):
    """In workers a job fails, so often at first."""

    def __init__(self, times: int) -> None:
        super().__init__(lambda index: index, 40)
        self.left = times

    def __getitem__(self, index: int) -> Any:
        if os.getpid() != HERE and self.left:
            self.left -= 1
            raise OSError("not there")
        return index


@pytest.mark.parametrize(("times", "stays_alone"), [(1, False), (1000, True)])
@pytest.mark.parametrize("on_error", ["raise", "skip", lambda error: "retry"], ids=["raise", "skip", "retry"])
def test_workers_that_fail_at_what_the_loop_can_do(times: int, stays_alone: bool, on_error: Any) -> None:
    """It has the batches from the loop. Where they fail at all of them, they are not used."""
    with prefetch(FailsThere(times), on_error=on_error) as batches:
        scripted(batches, lambda look: 1 if look == 0 else None)
        have(batches, 1)
        assert list(batches) == list(range(40))
        assert (batches._live.pool.engine.phase is Phase.LOST) == stays_alone  # type: ignore[union-attr]
        assert list(batches) == list(range(40))


class FailsHere(Called):
    """Some batches fail, wherever they are computed."""

    def __getitem__(self, index: int) -> Any:
        if index < 5:
            raise ValueError(f"batch {index}")
        return index


def test_a_batch_that_fails_in_both_is_no_trial() -> None:
    with prefetch(FailsHere(None, 40)) as batches:
        scripted(batches, lambda look: 1 if look == 0 else None)
        have(batches, 1)
        got = read(batches)
        assert [str(each) for each in got[:5]] == [f"batch {index}" for index in range(5)]
        assert got[5:] == list(range(5, 40))
        assert batches.report().nb_workers == 1


def test_the_loop_writes_into_the_batch_that_is_compared() -> None:
    with prefetch(Called(lambda index: [np.full(4, index)], 40)) as batches:
        scripted(batches, lambda look: 1 if look == 0 else None)
        have(batches, 1)
        for index, (batch,) in enumerate(batches):
            assert batch.tolist() == [index] * 4
            batch[:] = 0
        assert batches.report().nb_workers == 1


def test_a_pass_that_is_left_before_it_is_compared() -> None:
    """The next one begins with a trial of its own."""
    with prefetch(Called(lambda index: "here" if os.getpid() == HERE else "there", 40)) as batches:
        scripted(batches, lambda look: 1 if look == 0 else None)
        have(batches, 1)
        for _ in range(3):
            assert next(iter(batches)) == "here"
        assert list(batches) == ["here"] * 40
