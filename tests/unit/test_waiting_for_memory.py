"""Batches that wait for memory: the schedule's part, on a machine that has room for so many batches."""

from __future__ import annotations

import random
from typing import Any

import pytest
from bench import Bench
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.engine.bounds import Bounds
from workers.engine.results import Failure, Result
from workers.engine.waiting_for_memory import NextStep


def failed() -> Result:
    return Result(Failure(MemoryError()))


class Machine(Bench):
    """A bench on which ``room`` batches fit: those that are finished, not taken, or held by the loop."""

    def __init__(self, room: int, num_workers: int = 2, **options: Any) -> None:
        super().__init__(num_workers, **options)
        self.room = room
        self.held: list[Any] = []
        self.is_awaited = False
        self.is_known = True  # how much memory is left
        self.steps: list[NextStep] = []
        self.errors_due_to: list[int] = []  # how many batches were held when there was no room for one more

    def left(self) -> int:
        finished = [*self.schedule._delivery.finished.values(), *[value for _, value in self.untaken], *self.held]
        return self.room - sum(not isinstance(each, Result) for each in finished)

    def answer(self, worker: int, ns: int = 0) -> None:
        row = self.sent[worker][0]
        if self.left() > 0:
            super().answer(worker, ns)
            return
        self.sent[worker].pop(0)
        ticket = self.schedule.take_back(worker, row.sending)
        if ticket is not None:
            self.schedule.parked.add(ticket, 1)

    def take(self) -> None:
        super().take()
        self.is_awaited = False
        self.held.append(self.taken[-1][1])
        self.schedule.parked.moved()

    def wait(self) -> None:
        """The consumer has nothing to take, and waits."""
        assert not self.untaken
        if not self.is_awaited:
            self.is_awaited = True
            self.schedule.parked.moved()

    def turn(self, now_ns: int = 0) -> None:
        self.untaken += self.schedule.take_outcomes()
        parked = self.schedule.parked
        while parked.waiting and self.schedule.is_idle:
            self.schedule.check()
            left = self.left() if self.is_known else None
            self.steps.append(parked.step(left, self.is_awaited and not self.untaken))
            if self.steps[-1] is NextStep.GIVE_UP:
                self.errors_due_to.append(self.room - self.left())
                self.schedule.finish(parked.give_up(), failed())
            if self.steps[-1] in (NextStep.GIVE_UP, NextStep.WAIT):
                break
        super().turn()

    def finish_sent(self) -> None:
        """As it was sent; the first is the first to get memory."""
        self.turn()
        while busy := [worker for worker, rows in self.sent.items() if rows]:
            self.answer(min(busy, key=lambda worker: self.sent[worker][0].sending))
            self.turn()

    def read(self, length: int) -> None:
        """So many batches; the loop holds none."""
        while len(self.taken) < length:
            self.finish_sent()
            while self.untaken:
                self.take()
                self.held.clear()
            self.wait()


def test_nothing_new_is_sent_while_one_waits() -> None:
    """What is out goes on to its end, and others may come to wait too."""
    bench = Machine(4, max_queue_size=8)
    bench.schedule.begin(0, 20)
    bench.finish_sent()
    assert len(bench.untaken) == 4
    assert sorted(bench.schedule.parked.waiting) == [4, 5, 6, 7]
    assert bench.schedule.wanted_room() is None
    assert bench.schedule.is_idle
    assert bench.steps[-1] is NextStep.WAIT


def test_it_is_tried_again_alone_with_each_batch_that_is_let_go_of() -> None:
    bench = Machine(4, max_queue_size=6)
    bench.schedule.begin(0, 20)
    bench.finish_sent()
    waiting = sorted(bench.schedule.parked.waiting)
    bench.take()
    bench.turn()
    assert bench.steps[-1] is NextStep.WAIT  # the loop holds it
    bench.held.clear()
    bench.take()
    bench.turn()
    assert bench.steps[-1] is NextStep.TRY
    sent = [row.index for rows in bench.sent.values() for row in rows]
    assert sent == waiting[:1]
    bench.turn()
    assert [row.index for rows in bench.sent.values() for row in rows] == sent
    bench.finish_sent()
    assert sorted(bench.schedule.parked.waiting) == waiting[1:]


def test_what_is_finished_behind_it_is_dropped_and_comes_later() -> None:
    bench = Machine(3, num_workers=3, max_queue_size=3)
    bench.schedule.begin(0, 9)
    bench.turn()
    first = bench.sent[0].pop()
    bench.answer(1)
    bench.answer(2)
    bench.held = ["one of before"]
    bench.schedule.parked.add(bench.schedule.take_back(0, first.sending) or 0, 1)
    bench.turn()
    assert bench.steps == [NextStep.WAIT]
    bench.wait()
    bench.turn()
    assert bench.steps[1:] == [NextStep.DROPPED, NextStep.TRY]
    assert bench.schedule._delivery.finished == {}
    bench.read(9)
    assert bench.taken == [(index, (0, index)) for index in range(9)]


def test_errors_are_not_dropped() -> None:
    """They take no memory, and their jobs are not to be run again."""
    bench = Machine(0, num_workers=2, max_queue_size=2)
    bench.schedule.begin(0, 2)
    bench.turn()
    bench.done(1, bench.sent[1].pop().sending, failed())
    bench.answer(0)
    bench.wait()
    bench.turn()
    assert bench.steps == [NextStep.GIVE_UP]
    bench.turn()
    assert [index for index, _ in bench.untaken] == [0, 1]


def test_where_it_is_not_known_what_is_left() -> None:
    """It is tried once when the loop has moved, and once more when others were dropped for it."""
    bench = Machine(2, max_queue_size=4)
    bench.is_known = False
    bench.schedule.begin(0, 8)
    bench.finish_sent()
    assert len(bench.untaken) == 2
    first = len(bench.steps)
    bench.take()
    bench.finish_sent()
    bench.finish_sent()
    assert bench.steps[first:] == [NextStep.TRY, NextStep.WAIT, NextStep.WAIT]
    bench.take()
    bench.finish_sent()
    bench.wait()
    bench.finish_sent()
    assert bench.steps[-3:] == [NextStep.WAIT, NextStep.TRY, NextStep.GIVE_UP]
    assert bench.errors_due_to == [2]


def test_one_that_is_asked_for_again_comes_first() -> None:
    """The consumer waits for nothing else; out of order it may be behind others that wait."""
    bench = Machine(1, max_queue_size=3, in_order=False)
    bench.schedule.begin(0, 3)
    bench.turn()
    worker = next(worker for worker, rows in bench.sent.items() if any(row.index == 2 for row in rows))
    row = next(row for row in bench.sent[worker] if row.index == 2)
    bench.sent[worker].remove(row)
    bench.done(worker, row.sending, failed())
    bench.room = 0
    bench.finish_sent()
    assert sorted(bench.schedule.parked.waiting) == [0, 1]
    bench.schedule.repeat(2, 1)
    bench.finish_sent()
    assert bench.schedule.take_repeated() == [(2, failed_like())]
    assert sorted(bench.schedule.parked.waiting) == [0, 1]


class failed_like:
    """Equal to any :func:`failed`."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Result) and isinstance(other.value, Failure)

    __hash__ = None  # type: ignore[assignment]


def test_a_death_of_who_tries_it() -> None:
    bench = Machine(2, max_queue_size=4)
    bench.schedule.begin(0, 6)
    bench.finish_sent()
    bench.take()
    bench.held.clear()
    bench.turn()
    (worker,) = [worker for worker, rows in bench.sent.items() if rows]
    bench.die(worker)
    bench.turn()
    assert [row.attempt for rows in bench.sent.values() for row in rows] == [1]
    bench.read(6)
    assert bench.taken == [(index, (0, index)) for index in range(6)]


def test_a_pass_that_is_left() -> None:
    bench = Machine(2, max_queue_size=6)
    bench.schedule.begin(0, 9)
    bench.finish_sent()
    assert bench.schedule.parked
    bench.untaken.clear()
    bench.schedule.begin(1, 4)
    assert not bench.schedule.parked
    bench.room = 99
    bench.finish()
    assert bench.taken == [(index, (1, index)) for index in range(4)]


def test_the_pass_ahead_waits_until_it_is_read() -> None:
    """No error of it, and none of its batches dropped for it, while the loop is still in the pass before."""
    bench = Machine(3, max_queue_size=6)
    bench.schedule.begin(0, 2)
    bench.turn()
    bench.schedule.ahead(1, 4)
    bench.finish_sent()
    while bench.untaken:
        bench.take()
    bench.wait()
    bench.finish_sent()
    assert set(bench.steps) <= {NextStep.WAIT, NextStep.TRY}
    waiting = len(bench.schedule.parked.waiting)
    assert waiting
    bench.schedule.begin(1, 4)
    assert len(bench.schedule.parked.waiting) == waiting
    bench.held.clear()
    bench.taken.clear()
    bench.read(4)
    assert bench.taken == [(index, (1, index)) for index in range(4)]


@pytest.mark.parametrize("chosen", [None, 6])
def test_the_bound_is_halved_once_for_all_that_come_together(chosen: int | None) -> None:
    """Unless the user has chosen it."""
    bench = Machine(2, max_queue_size=chosen)
    bench.schedule.begin(0, 50)
    for halved in (3, 1, 1):
        bench.room = 2
        for _ in range(10):
            bench.finish_sent()
            if bench.schedule.parked:
                break
            bench.room = 0
        assert bench.schedule.bound() == (chosen or halved)
        bench.room = 99
        bench.schedule.parked.moved()
        bench.finish_sent()
        assert not bench.schedule.parked
        bench.untaken.clear()


def test_the_bound_after_memory_was_short() -> None:
    bounds = Bounds(2)
    for _ in range(50):
        bounds.learn(5_000_000, 1000)
    assert bounds.bound() == 20
    bounds.halve()
    assert (bounds.bound(), bounds.bundle()) == (10, 2)
    for _ in range(9):
        bounds.halve()
    assert (bounds.bound(), bounds.bundle()) == (1, 1)


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    num_workers=st.integers(1, 4),
    bound=st.one_of(st.none(), st.integers(1, 9)),
    in_order=st.booleans(),
    length=st.integers(1, 25),
    room=st.integers(1, 6),
    is_known=st.booleans(),
)
def test_whatever_happens_an_error_only_where_the_loop_holds_all(
    seed: int, num_workers: int, bound: int | None, in_order: bool, length: int, room: int, is_known: bool
) -> None:
    """Random answers, deaths, takes, breaks, and a loop that holds some: each batch comes, if one fits beside those."""
    draw = random.Random(seed)
    bench = Machine(room, num_workers, ready=False, max_queue_size=bound, in_order=in_order, max_runs=99)
    bench.is_known = is_known
    for epoch in range(3):
        bench.schedule.begin(epoch, length)
        bench.taken.clear()
        bench.untaken.clear()
        bench.is_awaited = planned = False
        keeps = draw.randrange(room + 1)
        leaves_at = draw.choice([length, length, draw.randrange(length)])
        for _ in range(20_000):
            if len(bench.taken) >= leaves_at:
                break
            if draw.random() < 0.5 and not planned and bench.schedule.may_look_ahead:
                bench.schedule.ahead(epoch + 1, length)
                planned = True
            bench.turn()
            bench.sent = {
                worker: [row for row in rows if bench.wants(worker, row.sending)] for worker, rows in bench.sent.items()
            }
            worker = draw.choice(list(bench.sent))
            what = draw.random()
            if what < 0.05:
                bench.die(worker, running=draw.random() < 0.7)
            elif what < 0.06:
                bench.die_with_server()
            elif what < 0.2:
                bench.schedule.ready(worker)
            elif what < 0.8 and bench.sent[worker]:
                bench.answer(worker, ns=draw.choice([0, 1000, 10**8]))
            elif bench.untaken:
                bench.take()
                del bench.held[: max(0, len(bench.held) - keeps)]
            elif draw.random() < 0.5:
                bench.wait()
        else:
            raise AssertionError("no end")
        if leaves_at == length:
            assert sorted(bench.indices()) == list(range(length))
            if in_order:
                assert bench.indices() == list(range(length))
        errors = [index for index, value in bench.taken if isinstance(value, Result)]
        assert not errors or keeps == room
        assert all(value == (epoch, index) for index, value in bench.taken if index not in errors)
        assert all(held >= room for held in bench.errors_due_to)
        del bench.held[:]
