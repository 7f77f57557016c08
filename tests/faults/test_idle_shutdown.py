"""Workers that have nothing to do are ended after a while, and the loop does not notice."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest
from faulty import LENGTH, Faulty, is_gone, read, same, servers, undisturbed, wait_for, worker_processes

from workers import Sequence, SequenceMap, current_rng, prefetch
from workers.engine import idle_shutdown


@pytest.fixture(params=[0.0, 0.05], ids=["at once", "soon"])
def soon(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    """The minute."""
    monkeypatch.setattr(idle_shutdown, "IDLE_S", request.param)
    return float(request.param)


def wait_until_at_rest(batches: SequenceMap) -> None:
    engine: Any = batches._live.pool.engine  # type: ignore[union-attr]
    # A pool that has not begun yet has no workers either.
    wait_for(lambda: engine._driver._idle_shutdown.has_ended_workers and not worker_processes())


class Hooked(Sequence):
    """Its hooks are counted, and what they change is seen by the epoch."""

    def __init__(self) -> None:
        super().__init__(seed=3)
        self.calls: list[str] = []
        self.scale = 1

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Any:
        return index, self.scale, current_rng().integers(1 << 40, size=20_000)

    def on_epoch_begin(self) -> None:
        self.calls.append("begin")

    def on_epoch_end(self) -> None:
        self.calls.append("end")
        self.scale += 1


class Plain(Hooked):
    """Has none, so the next epoch is begun before this one ends."""

    on_epoch_begin = Sequence.on_epoch_begin
    on_epoch_end = Sequence.on_epoch_end


def serial(make: Any, num_epochs: int, **options: Any) -> list[Any]:
    with prefetch(make(), nb_workers=0, **options) as batches:
        return [list(batches) for _ in range(num_epochs)]


def assert_equal(one: Any, other: Any) -> None:
    assert len(one) == len(other)
    for got, wanted in zip(one, other, strict=True):
        assert got[:2] == wanted[:2]
        assert np.array_equal(got[2], wanted[2])


@pytest.mark.own_server
@pytest.mark.parametrize("bound", [1, 5, None])
def test_a_loop_that_pauses(soon: float, bound: int | None) -> None:
    """Wherever it does: the same batches, hooks and states, from the same server."""
    wanted, seq = serial(Hooked, 2), Hooked()
    with seq.prefetch(nb_workers=2, max_queue_size=bound) as batches, Hooked().prefetch(nb_workers=0) as plain:
        (server,) = servers()
        for epoch in range(2):
            got, loop, plain_loop = [], iter(batches), iter(plain)
            for number in range(12):
                if number in (0, 1, 2, 7, 11):
                    wait_until_at_rest(batches)
                got.append(next(loop))
                next(plain_loop)
                assert batches.state_dict() == plain.state_dict()
            wait_until_at_rest(batches)
            assert next(loop, None) is None
            assert_equal(got, wanted[epoch])
            wait_until_at_rest(batches)
        assert servers() == [server]
        assert seq.calls == ["begin", "end"] * 2


@pytest.mark.parametrize("make", [Hooked, Plain])
@pytest.mark.parametrize("options", [{}, {"in_order": False}, {"max_queue_size": 1}, {"max_queue_size": 3}])
def test_pauses_at_random(soon: float, options: dict[str, Any], make: Any) -> None:
    """Of lengths about that in which workers are ended, or started."""
    draw = random.Random(1)
    with make().prefetch(nb_workers=2, **options) as batches:
        for epoch, wanted in enumerate(serial(make, 6)):
            got = []
            for batch in batches:
                got.append(batch)
                time.sleep(draw.choice([0.0, 0.0, 0.0, 0.001, 0.01, soon]) * draw.random())
            assert_equal(sorted(got, key=lambda each: each[0]) if "in_order" in options else got, wanted)
            assert batches.epoch == epoch + 1


def test_batches_stay_as_they_are(soon: float) -> None:
    """Those that the loop holds, and those that were finished: without any worker."""
    with Hooked().prefetch(nb_workers=2, max_queue_size=4) as batches:
        loop = iter(batches)
        held = [next(loop), next(loop)]
        wait_until_at_rest(batches)
        assert len(batches._live.current.reading.outcomes) == 4  # type: ignore[union-attr]
        assert_equal([*held, *loop], serial(Hooked, 1)[0])
    assert_equal(held, serial(Hooked, 1)[0][:2])


def test_a_cell_that_has_raised(soon: float) -> None:
    """IPython keeps the traceback, and so the frame, its iterator and the front-end."""

    def cell() -> None:
        batches = Hooked().prefetch(nb_workers=2)
        for index, _, _ in batches:
            if index == 3:
                raise LookupError

    try:
        cell()
    except LookupError as error:
        kept: Any = error
    batches = kept.__traceback__.tb_next.tb_frame.f_locals["batches"]
    wait_until_at_rest(batches)
    assert next(batches)[0] == 4
    del kept


def test_break_then_a_full_epoch(soon: float) -> None:
    with Hooked().prefetch(nb_workers=2, max_queue_size=3) as batches:
        wanted = serial(Hooked, 3)
        next(iter(batches))
        wait_until_at_rest(batches)
        assert_equal(list(batches), wanted[1])
        wait_until_at_rest(batches)
        assert_equal(list(batches), wanted[2])


def numbers() -> Iterator[Any]:
    yield from range(30)


@pytest.mark.parametrize("make", [lambda: list(range(30)), numbers], ids=["indexed", "stream"])
def test_other_sources(soon: float, make: Any) -> None:
    def twice(number: int) -> Any:
        return [np.full(20_000, number), np.full(3, -number)]

    with SequenceMap(make(), 2, twice, max_queue_size=4) as batches:
        got = []
        for batch in batches:
            got.append(batch)
            if len(got) in (1, 2, 31, 59, 60):
                wait_until_at_rest(batches)
    assert [int(batch[0]) for batch in got] == [sign * number for number in range(30) for sign in (1, -1)]


@pytest.mark.parametrize("make", [lambda: list(range(9)), lambda: iter(range(9))], ids=["indexed", "stream"])
def test_a_job_that_is_tried_again(soon: float, make: Any) -> None:
    """on_error may take long: the job goes to a new worker, with what it works on."""

    def fails_once(number: int) -> int:
        from workers import current_job

        job = current_job()
        assert job is not None
        if number % 4 == 0 and job.attempt == 0:
            raise LookupError
        return number

    def on_error(error: BaseException) -> str:
        wait_until_at_rest(batches)
        return "retry"

    with SequenceMap(make(), 2, fails_once, on_error=on_error, max_queue_size=3) as batches:
        assert list(batches) == list(range(9))


def test_a_state_is_loaded(soon: float) -> None:
    with Hooked().prefetch(nb_workers=2) as batches:
        loop = iter(batches)
        next(loop)
        state = batches.state_dict()
        wait_until_at_rest(batches)
        rest_of_it = list(loop)
    with Hooked().prefetch(nb_workers=2) as again:
        wait_until_at_rest(again)
        again.load_state_dict(state)
        assert_equal(list(again), rest_of_it)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_is_killed_meanwhile(soon: float, number: int) -> None:
    with Faulty("").prefetch(nb_workers=2, max_queue_size=6) as batches:
        loop = iter(batches)
        got = [next(loop)]
        wait_until_at_rest(batches)
        for server in servers():
            server.send_signal(number)
            wait_for(lambda pid=server.pid: is_gone(pid))
        got += loop
    for one, other in zip(got, undisturbed()[0], strict=True):
        assert same(one, other)


def test_workers_are_killed_while_they_are_ended(soon: float) -> None:
    with Faulty("").prefetch(nb_workers=2, max_queue_size=2) as batches:
        for at, (one, other) in enumerate(zip(batches, undisturbed()[0], strict=True)):
            assert same(one, other)
            if at % 3 == 0:
                for process in worker_processes():
                    with contextlib.suppress(psutil.NoSuchProcess):  # it was faster
                        process.kill()
            time.sleep(soon)


def test_a_stopped_worker_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it cannot end by itself."""
    monkeypatch.setattr(idle_shutdown, "IDLE_S", 1.0)
    with Hooked().prefetch(nb_workers=2, max_queue_size=3) as batches:
        loop = iter(batches)
        got = [next(loop)]
        engine: Any = batches._live.pool.engine  # type: ignore[union-attr]
        wait_for(
            lambda: (
                engine.handover.num_untaken == 3  # else they are idle only until the next ones are sent
                and engine.schedule.is_idle
                and not any(engine.executor.look(each)[0] for each in engine.schedule.workers())
            )
        )
        for process in worker_processes():
            process.suspend()
        wait_until_at_rest(batches)
        assert_equal([*got, *loop], serial(Hooked, 1)[0])


@pytest.mark.own_server
def test_closed_meanwhile(soon: float) -> None:
    batches = Faulty("").prefetch(nb_workers=2)
    wait_until_at_rest(batches)
    batches.close()
    assert servers() == []


def test_errors_at_their_place(soon: float) -> None:
    with Faulty("raise").prefetch(nb_workers=2, max_queue_size=3) as batches:
        wait_until_at_rest(batches)
        got = read(batches)
    assert len(got) == LENGTH
    assert sum(isinstance(each, Exception) for each in got) == 1


def test_a_job_that_nobody_waits_for_is_not_cut_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """A worker that is in one has something to do."""
    monkeypatch.setattr(idle_shutdown, "IDLE_S", 0.0)

    def slow(index: int) -> int:
        from workers import current_job

        job = current_job()
        if index == 1 and job is not None and job.epoch == 0:
            (tmp_path / "begun").touch()
            while not (tmp_path / "go").exists():
                time.sleep(0.01)
            (tmp_path / "ended").touch()
        return index

    with SequenceMap([0, 1, 2, 3], 2, slow, max_queue_size=2) as batches:
        assert next(iter(batches)) == 0
        wait_for((tmp_path / "begun").exists)
        for _ in range(3):  # the other worker does all of these, and has nothing to do in between
            assert list(batches) == [0, 1, 2, 3]
        (tmp_path / "go").touch()
        wait_for((tmp_path / "ended").exists)
        wait_until_at_rest(batches)


def test_threads_stay(soon: float) -> None:
    with Hooked().prefetch(nb_workers=2, executor="thread", max_queue_size=2) as batches:
        for got, wanted in zip(batches, serial(Hooked, 1)[0], strict=True):
            assert_equal([got], [wanted])
            time.sleep(soon / 10)


def test_a_minute_is_long() -> None:
    """Workers that have just become idle are there."""
    assert idle_shutdown.IDLE_S == 60.0
    with Hooked().prefetch(nb_workers=2) as batches:
        list(batches)
        assert len(worker_processes()) == 2
