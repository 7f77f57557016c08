"""The pure scheduler: order, bounds, retries, passes; no process, no time."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from bench import Bench
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.engine.bounds import BUNDLE_NS
from workers.engine.results import Failure, Result
from workers.engine.serial import SerialEngine
from workers.engine.worker_loads import UNBEGUN_NS
from workers.job.task import Task

STUCK_NS = 2 * BUNDLE_NS


def test_a_pass_is_delivered_in_order() -> None:
    """Also when the second worker is always faster."""
    bench = Bench()
    bench.schedule.begin(0, 20)
    while len(bench.taken) < 20:
        bench.turn()
        bench.answer(max(worker for worker, rows in bench.sent.items() if rows))
        bench.turn()
        while bench.untaken:
            bench.take()
    assert bench.indices() == list(range(20))


@pytest.mark.parametrize("in_order", [True, False])
def test_an_order_of_its_own(in_order: bool) -> None:
    """Delivered in that order; then passes as before."""
    bench = Bench(in_order=in_order)
    for order in ([3, 0, 3, 7], [5]):
        bench.schedule.begin(0, len(order), order=order)
        bench.turn()
        bench.die(min(bench.sent))
        while len(bench.taken) < len(order):
            bench.turn()
            bench.answer(max(worker for worker, rows in bench.sent.items() if rows))
            bench.turn()
            while bench.untaken:
                bench.take()
        assert bench.taken == [(index, (0, index)) for index in order]
        bench.taken.clear()
    bench.schedule.begin(1, 6)
    bench.finish()
    assert sorted(bench.indices()) == list(range(6))


class Backwards(Sequence[int]):
    """The indices below ``length``, the last one first. Never to be gone through."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, at: Any) -> Any:
        if not 0 <= at < self.length:
            raise IndexError(at)
        return self.length - 1 - at

    def index(self, value: int, *_: int) -> int:
        return self.length - 1 - value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Backwards) and other.length == self.length

    __hash__ = None  # type: ignore[assignment]

    def __iter__(self) -> Iterator[int]:
        raise AssertionError("it was gone through")

    __reversed__ = __contains__ = count = __iter__  # type: ignore[assignment]


def _read_some(bench: Bench, count: int) -> None:
    while len(bench.taken) < count:
        bench.turn()
        bench.answer(max(worker for worker, rows in bench.sent.items() if rows))
        bench.turn()
        while bench.untaken:
            bench.take()


@pytest.mark.parametrize("order", [range(7, 10**12 + 7), Backwards(10**12)], ids=["range", "lazy"])
def test_an_order_without_an_end(order: Sequence[int]) -> None:
    """A lazy sequence is as good as a list: it is asked for what is sent, and otherwise left alone."""
    length = 10**12
    bench = Bench(keeps_failed=True)
    bench.schedule.begin(3, length, order=order)
    bench.turn()
    bench.die(0)
    _read_some(bench, 50)
    assert bench.taken[:50] == [(order[at], (3, order[at])) for at in range(50)]
    bench.schedule.repeat(order[4], 1)
    bench.schedule.forget(order[5])
    _read_some(bench, 100)
    assert bench.schedule.take_repeated() == [(order[4], (3, order[4]))]


@pytest.mark.parametrize("order", [range(7, 10**12 + 7), Backwards(10**12)], ids=["range", "lazy"])
def test_an_order_without_an_end_is_known_again(order: Sequence[int]) -> None:
    """What was computed ahead stays if the pass that begins has an equal order."""
    like = range(7, 10**12 + 7) if isinstance(order, range) else Backwards(10**12)
    bench = Bench(max_queue_size=8)
    for begun, kept in ((like, 8), (Backwards(10**12 - 1), 0)):
        bench.schedule.revoke()
        bench.sent = {worker: [] for worker in bench.sent}
        bench.schedule.begin(0, 1)
        bench.turn()
        bench.schedule.ahead(1, 10**12, order)
        bench.finish_sent()
        bench.take()
        bench.turn()
        bench.finish_sent()
        assert bench.taken.pop() == (0, (0, 0))
        assert len(bench.schedule._delivery.finished) == 8
        bench.schedule.begin(1, len(begun), order=begun)
        assert len(bench.schedule._delivery.finished) == kept


def test_the_order_of_an_open_pass_is_its_own() -> None:
    """It grows with what is added; the one that was given does not."""
    bench = Bench()
    given: list[int] = []
    bench.schedule.begin(0, 0, is_open=True, order=given)
    for number, index in enumerate([4, 2, 9]):
        bench.schedule.add(number, index, "item")
    bench.finish()
    assert bench.indices() == [4, 2, 9]
    assert given == []


def test_as_they_come() -> None:
    """in_order=False hands over what is there, but nothing of the next epoch."""
    bench = Bench(in_order=False, max_queue_size=4)
    bench.schedule.begin(0, 3)
    bench.schedule.ahead(1, 3)
    bench.turn()
    while bench.sent[1]:
        bench.answer(1)
    bench.turn()
    assert bench.untaken
    assert all(outcome[0] == 0 for _, outcome in bench.untaken)
    assert 0 not in [index for index, _ in bench.untaken]


@pytest.mark.parametrize("bound", [1, 2, 3, 7])
def test_the_bound(bound: int) -> None:
    """Never more than max_queue_size batches finished or in work ahead of the consumer."""
    bench = Bench(num_workers=3, max_queue_size=bound)
    bench.schedule.begin(0, 30)
    started = 0
    while len(bench.taken) < 30:
        bench.turn()
        busy = [worker for worker, rows in bench.sent.items() if rows]
        ahead = sum(map(len, bench.sent.values())) + len(bench.untaken) + len(bench.schedule._delivery.finished)
        assert ahead <= bound
        started = max(started, ahead)
        if busy:
            bench.answer(busy[-1])
        elif bench.untaken:
            bench.take()
    assert started == bound


def test_both_workers_get_work_when_there_is_little() -> None:
    bench = Bench(max_queue_size=2)
    bench.schedule.begin(0, 9)
    bench.turn()
    assert [len(rows) for rows in bench.sent.values()] == [1, 1]


def test_short_jobs_are_bundled_and_long_ones_are_not() -> None:
    for ns, bundled in ((10_000, True), (50_000_000, False)):
        bench = Bench()
        bench.schedule.begin(0, 10_000)
        for _ in range(50):
            bench.turn()
            busy = [worker for worker, rows in bench.sent.items() if rows]
            bench.answer(min(busy, key=lambda worker: bench.sent[worker][0].sending), ns)
            bench.untaken.clear()
        assert (bench.schedule.bundle() > 50) is bundled
        if not bundled:
            assert max(map(len, bench.sent.values())) <= 2


def test_jobs_of_a_dead_worker_are_sent_again() -> None:
    bench = Bench()
    bench.schedule.begin(0, 10)
    bench.turn()
    bench.die(0)
    bench.finish()
    assert bench.indices() == list(range(10))


def test_the_third_death_in_a_job_is_its_end() -> None:
    """Its place gets a Failure; a job that only waited behind it is not blamed."""
    bench = Bench(num_workers=1, explain=lambda *about: ValueError(about))
    bench.schedule.begin(0, 5)
    for _ in range(3):
        bench.turn()
        assert bench.sent[max(bench.sent)][0].index == 0
        bench.die(max(bench.sent))
    bench.finish()
    assert bench.indices() == list(range(5))
    failure = bench.taken[0][1].value
    assert isinstance(failure, Failure)
    assert failure.error.args[0][:4] == (0, 0, 3, ["cause"] * 3)
    assert [outcome for _, outcome in bench.taken[1:]] == [(0, index) for index in range(1, 5)]


@pytest.mark.parametrize(("max_runs", "expected"), [(1, 2), (2, 2), (3, 3)])
def test_who_died_with_others_runs_alone_before_it_is_blamed(max_runs: int, expected: int) -> None:
    bench = Bench(num_workers=3, explain=lambda *about: ValueError(about), max_runs=max_runs)
    bench.schedule.begin(0, 9)
    deaths = 0
    for _ in range(100):
        bench.turn()
        bench.turn()
        running = {rows[0].index: worker for worker, rows in bench.sent.items() if rows}
        if deaths:
            assert len(running) <= 1 or deaths == expected
        if 1 in running:  # it ends the server, before the others are through
            deaths += 1
            bench.die_with_server()
        elif running:
            bench.answer(running[min(running)])
    assert deaths == expected
    bench.finish()
    assert bench.indices() == list(range(9))
    assert [index for index, outcome in bench.taken if outcome != (0, index)] == [1]
    assert bench.taken[1][1].value.error.args[0][:4] == (0, 1, expected, ["cause"] * expected)


def test_an_abandoned_pass_leaves_nothing_behind() -> None:
    """Answers to the old pass are dropped, also those that were with a worker."""
    bench = Bench()
    bench.schedule.begin(0, 10)
    bench.turn()
    old = {worker: list(rows) for worker, rows in bench.sent.items()}
    for rows in bench.sent.values():
        rows.clear()
    bench.schedule.begin(1, 4)
    assert set(bench.schedule.cancelled) == {0, 1}
    for worker, rows in old.items():
        for row in rows:
            assert not bench.wants(worker, row.sending)
            assert not bench.done(worker, row.sending, "old")
    bench.finish()
    assert bench.taken == [(index, (1, index)) for index in range(4)]


@pytest.mark.parametrize("come_as_planned", [True, False])
def test_the_pass_ahead(come_as_planned: bool) -> None:
    """Is worked on before it begins, and kept only if it is the one that begins."""
    bench = Bench(max_queue_size=8)
    bench.schedule.begin(0, 3)
    bench.turn()
    assert bench.schedule.may_look_ahead
    bench.schedule.ahead(1, 3)
    bench.finish()
    assert [outcome for _, outcome in bench.taken] == [(0, index) for index in range(3)]
    assert len(bench.schedule._delivery.finished) == 3
    bench.taken.clear()
    bench.schedule.begin(1 if come_as_planned else 2, 3)
    assert len(bench.schedule._delivery.finished) == (3 if come_as_planned else 0)
    bench.finish()
    assert [outcome for _, outcome in bench.taken] == [(1 if come_as_planned else 2, index) for index in range(3)]


def test_an_open_pass() -> None:
    """Its jobs are handed in one by one, with what they work on."""
    bench = Bench()
    bench.schedule.begin(0, 0, is_open=True)
    for number, letter in enumerate("abc"):
        bench.schedule.add(number, number, letter)
    bench.turn()
    assert sorted(row.payload for rows in bench.sent.values() for row in rows) == ["a", "b", "c"]
    bench.die(0)
    bench.schedule.add(3, 3, "d")
    bench.finish()
    assert bench.indices() == [0, 1, 2, 3]


def test_what_waits_behind_a_stuck_job_goes_to_an_idle_worker() -> None:
    bench = Bench(max_queue_size=4)
    bench.schedule.begin(0, 4)
    bench.turn()
    stuck, waiting = bench.sent[0]
    while bench.sent[1]:
        bench.answer(1)
    bench.turn()
    assert bench.schedule.may_relieve()
    bench.schedule.saw(0, stuck.sending, 1)
    bench.turn(now_ns=STUCK_NS // 2)
    assert not bench.sent[1]
    bench.untaken += bench.schedule.take_outcomes()
    cancelled = bench.schedule.to_relieve(STUCK_NS + 2)
    assert cancelled == {0: waiting.sending}
    plan = bench.schedule.relieve(cancelled)
    assert [(worker, [row.index for row in rows]) for worker, rows in plan] == [(1, [waiting.index])]
    assert not bench.wants(0, waiting.sending)
    assert bench.wants(0, stuck.sending)


@pytest.mark.parametrize("has_run", [True, False])
def test_what_a_worker_has_begun_meanwhile_it_keeps(has_run: bool) -> None:
    """Between a look at it and its being told: else two would be in it, and none left for the others."""
    bench = Bench(max_queue_size=4)
    bench.schedule.begin(0, 4)
    bench.turn()
    first, begun = bench.sent[0]
    while bench.sent[1]:
        bench.answer(1)
    bench.turn()
    bench.schedule.saw(0, first.sending, 1)
    cancelled = bench.schedule.to_relieve(STUCK_NS + 2)
    bench.schedule.saw(0, begun.sending, STUCK_NS + 2)
    sends = bench.schedule.relieve(cancelled)
    assert bench.wants(0, begun.sending)
    bench.sent[1] += [row for worker, rows in sends for row in rows]
    bench.schedule.check()
    if not has_run:  # it had said that it begins, and then found it cancelled
        bench.sent[0].remove(begun)
        bench.schedule.cancelled_by(0, begun.sending)
    bench.finish()
    assert bench.indices() == [0, 1, 2, 3]


def test_what_waits_behind_a_slow_job_comes_before_what_is_new() -> None:
    """Though the other worker has never run dry; and the slow one gets no more until it has finished."""
    bench = Bench(max_queue_size=100)
    bench.schedule.begin(0, 30)
    bench.turn()
    slow, waiting = bench.sent[0]
    begun: list[int] = []
    while not bench.schedule.may_relieve():
        assert len(begun) < 8
        begun.append(bench.sent[1][0].index)
        bench.answer(1, ns=STUCK_NS)
        bench.turn()
    bench.schedule.saw(0, slow.sending, 1)
    before = [row.index for row in bench.sent[1]]
    bench.answer(1, ns=STUCK_NS)
    bench.turn(now_ns=STUCK_NS + 2)
    assert [row.index for row in bench.sent[1]] == [*before[1:], waiting.index]
    for _ in range(5):
        bench.answer(1, ns=STUCK_NS)
        bench.turn(now_ns=STUCK_NS + 2)
    assert bench.sent[0] == [slow, waiting]
    assert not bench.wants(0, waiting.sending)
    bench.sent[0].pop()
    bench.answer(0, ns=9 * STUCK_NS)
    bench.schedule.saw(0, 0, 0)
    bench.turn(now_ns=STUCK_NS + 3)
    assert len(bench.sent[0]) == 2
    bench.finish()
    assert bench.indices() == list(range(30))


def test_a_stopped_worker_gets_jobs_again() -> None:
    """One that has begun none of its jobs has none to finish first."""
    bench = Bench(max_queue_size=100)
    bench.schedule.begin(0, 30)
    bench.turn()
    bench.schedule.saw(0, 0, 0, now_ns=1)
    bench.answer(1)
    bench.turn(now_ns=UNBEGUN_NS + 2)
    assert [row.index for row in bench.sent[0]] == [0, 2, 4, 5]
    assert [row.index for row in bench.sent[1]] == [3, 0, 2]
    assert [bench.wants(0, row.sending) for row in bench.sent[0]] == [False, False, True, True]


def test_wanted_room() -> None:
    """Is there as soon as the consumer has taken that many, and None when all is sent."""
    bench = Bench(max_queue_size=4)
    bench.schedule.begin(0, 6)
    bench.turn()
    for worker in (0, 1):
        while bench.sent[worker]:
            bench.answer(worker)
    bench.turn()
    assert bench.schedule.room(len(bench.untaken)) < (bench.schedule.wanted_room() or 0)
    for _ in range(bench.schedule.wanted_room() or 0):
        bench.take()
    bench.turn()
    assert any(bench.sent.values())
    bench.finish()
    assert bench.schedule.wanted_room() is None


def test_a_repeat_comes_before_what_is_new() -> None:
    """The consumer waits for it; asked for again meanwhile, it comes once."""
    bench = Bench(1, max_queue_size=100)
    bench.schedule.begin(0, 100)
    bench.turn()
    bench.answer(0, ns=10**8)
    bench.turn()
    bench.take()
    waiting = [row.index for row in bench.sent[0]]
    for _ in range(2):
        bench.schedule.repeat(0, 1)
    for _ in waiting:
        bench.turn()
        bench.answer(0, ns=10**8)
    bench.turn()
    assert [(row.index, row.attempt) for row in bench.sent[0][:1]] == [(0, 1)]
    bench.answer(0)
    assert bench.schedule.take_repeated() == [(0, (0, 0))]
    bench.finish()
    assert bench.indices() == list(range(100))
    assert bench.schedule.take_repeated() == []


def test_a_repeat_waits_for_no_worker_that_is_starting() -> None:
    bench = Bench(2, ready=False)
    bench.schedule.ready(1)
    bench.schedule.begin(0, 1)
    bench.turn()
    for rows in bench.sent.values():
        while rows:
            bench.answer(next(worker for worker, each in bench.sent.items() if each is rows))
    bench.schedule.repeat(0, 1)
    bench.turn()
    assert [len(bench.sent[worker]) for worker in (0, 1)] == [0, 1]


@pytest.mark.parametrize("keeps", [False, True])
def test_what_a_failed_job_works_on(keeps: bool) -> None:
    """It is kept for as long as the job may be repeated."""
    bench = Bench(1, keeps_failed=keeps)
    bench.schedule.begin(0, 0, is_open=True)
    for number in range(3):
        bench.schedule.add(number, number, f"item {number}")
    payloads = bench.schedule._passes.current.payloads
    for number in range(3):
        bench.turn()
        row = bench.sent[0].pop(0)
        assert row.payload == f"item {number}"
        bench.done(0, row.sending, Result(Failure(OSError())))
    bench.turn()
    assert list(payloads.values()) == (["item 0", "item 1", "item 2"] if keeps else [])
    if keeps:
        bench.schedule.forget(1)
        bench.schedule.repeat(2, 1)
        bench.turn()
        bench.answer(0)
        assert list(payloads.values()) == ["item 0"]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    num_workers=st.integers(1, 4),
    bound=st.one_of(st.none(), st.integers(1, 9)),
    in_order=st.booleans(),
    length=st.integers(1, 25),
)
def test_whatever_happens_each_index_comes_once(
    seed: int, num_workers: int, bound: int | None, in_order: bool, length: int
) -> None:
    """Random answers, deaths, starts, takes, repeats, breaks: a pass that is read to its end has each index once."""
    draw = random.Random(seed)
    bench = Bench(num_workers, ready=False, max_queue_size=bound, in_order=in_order, max_runs=99)
    for epoch in range(4):
        bench.schedule.begin(epoch, length)
        bench.taken.clear()
        bench.untaken.clear()
        leaves_at = draw.choice([length, length, draw.randrange(length)])
        planned = False
        now = 0
        asked: list[int] = []  # to be tried again
        repeated: list[Any] = []
        while len(bench.taken) < leaves_at or (leaves_at == length and len(repeated) < len(asked)):
            now += STUCK_NS
            if draw.random() < 0.5 and not planned and bench.schedule.may_look_ahead:
                bench.schedule.ahead(epoch + 1, length)
                planned = True
            bench.turn(now)
            wanted = {
                worker: [row for row in rows if bench.wants(worker, row.sending)] for worker, rows in bench.sent.items()
            }
            bench.sent = wanted
            worker = draw.choice(list(bench.sent))
            rows = bench.sent[worker]
            what = draw.random()
            if what < 0.08:
                bench.die(worker, running=draw.random() < 0.7)
            elif what < 0.1:
                bench.die_with_server()
            elif what < 0.2:
                bench.schedule.ready(worker)
            elif what < 0.3 and rows:
                bench.schedule.saw(worker, rows[0].sending, now - 2 * STUCK_NS)
            elif rows and what < 0.8:
                bench.answer(worker, ns=draw.choice([0, 1000, 10**8]))
            elif bench.untaken:
                bench.take()
                if draw.random() < 0.2:
                    asked.append(bench.taken[-1][0])
                    bench.schedule.repeat(asked[-1], 1)
            else:
                busy = [name for name, rows in bench.sent.items() if rows]
                waits = bench.schedule._delivery.finished or bench.schedule._again or bench.schedule._repeated
                assert busy or bench.untaken or waits, "nothing left to do"
            repeated += bench.schedule.take_repeated()
        if leaves_at == length:
            assert sorted(repeated) == sorted((index, (epoch, index)) for index in asked)
            assert sorted(bench.indices()) == list(range(length))
            if in_order:
                assert bench.indices() == list(range(length))
        assert all(outcome == (epoch, index) for index, outcome in bench.taken)


def test_an_order_without_an_end_and_no_workers() -> None:
    engine = SerialEngine(Task(range(10**13), (), 0))
    reading = engine.begin(0, 10**12, False, None, None, Backwards(10**12))
    assert [reading.peek(number).value for number in (0, 10**11)] == [[10**12 - 1], [9 * 10**11 - 1]]
    reading = engine.begin(0, 10**12, False, None, None)
    assert reading.peek(10**12 - 1).value == [10**12 - 1]
