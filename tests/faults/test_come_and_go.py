"""``nb_workers="auto"``: whatever becomes of the workers while they come, go and come again, no batch is lost."""

from __future__ import annotations

import gc
import itertools
import os
import random
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from faulty import is_gone, wait_for, worker_processes
from scripted import LENGTH, Aside, Drawn, at_random, expected, have, plain, scripted

from workers import NotPicklableError, Sequence, StalePassError
from workers.engine import auto, auto_reading, idle_shutdown
from workers.engine.auto_reading import Phase
from workers.engine.chooser import Choice

HERE = os.getpid()


def never(look: int) -> None:
    """As before."""


# -- what cannot be sent any more


class Sealing(Drawn):
    """After an epoch it cannot be sent any more, as a whole; and it has changed."""

    is_sealed = False

    def on_epoch_end(self) -> None:
        self.noted += 1
        self.is_sealed = self.noted == 2

    def __getstate__(self) -> dict[str, Any]:
        if self.is_sealed:
            raise TypeError("it is sealed")
        return self.__dict__


def test_what_cannot_be_sent_any_more_is_computed_in_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    with Sealing().prefetch() as batches:
        scripted(batches, never)
        have(batches, 2)
        got = [plain(batch) for _ in range(4) for batch in batches]
        assert batches.report().nb_workers == 0
        wait_for(lambda: not worker_processes())
    assert got == expected(Sealing, 4)
    assert "without workers: the sequence" in caplog.text
    assert "it is sealed" in caplog.text


def test_a_pool_does_not_go_on_with_what_it_was_before() -> None:
    got = []
    with Sealing().prefetch(nb_workers=1) as batches:
        got += [plain(batch) for _ in range(2) for batch in batches]
        with pytest.raises(NotPicklableError, match="it is sealed"):
            iter(batches)
    assert got == expected(Sealing, 2)


def test_functions_that_cannot_be_sent_any_more(caplog: pytest.LogCaptureFixture) -> None:
    class Adding:
        number = 0

        def __call__(self, batch: Any) -> Any:
            return batch[1] + self.number

        def __reduce__(self) -> Any:
            if self.number:
                raise TypeError("it is locked")
            return Adding, ()

    adding = Adding()
    with Drawn().map(adding, nb_workers="auto") as batches:
        scripted(batches, never)
        have(batches, 1)
        assert list(batches) == list(range(LENGTH))
        adding.number = 1000
        assert list(batches) == list(range(1000, 1000 + LENGTH))
    assert "it is locked" in caplog.text


@pytest.mark.parametrize("nb_workers", [0, "auto"])
def test_what_was_replaced_is_not_kept(nb_workers: Any) -> None:
    sequence = Drawn()
    with sequence.prefetch(nb_workers=nb_workers) as batches:
        gone = weakref.ref(sequence.array)
        sequence.array = np.arange(100_000)
        assert gone() is None
        list(batches)


# -- forks


@pytest.mark.parametrize(("nb_workers", "with_workers"), [(0, 0), ("auto", 0), ("auto", 2)])
def test_a_fork_goes_on_alone(nb_workers: Any, with_workers: int) -> None:
    wanted = expected(Drawn, 2)
    with Drawn().prefetch(nb_workers=nb_workers) as batches:
        if nb_workers:
            scripted(batches, never)
        loop = iter(batches)
        got = [plain(next(loop)) for _ in range(10)]
        if with_workers:
            have(batches, with_workers)
            got += [plain(next(loop)) for _ in range(10)]
        child = os.fork()
        if not child:
            try:
                rest_of_it = [plain(batch) for batch in loop] + [plain(batch) for batch in batches]
                os._exit(42 if got + rest_of_it == wanted else 1)
            except BaseException:
                os._exit(2)
        got += [plain(batch) for batch in loop]
        got += [plain(batch) for batch in batches]
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    assert got == wanted


# -- rest


@pytest.mark.parametrize("are_used_before", [False, True])
def test_workers_that_were_ended_for_want_of_work_come_again(
    are_used_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle_shutdown, "IDLE_S", 0.1)

    class Where(Sequence[Aside]):
        def __len__(self) -> int:
            return 500

        def __getitem__(self, index: int) -> Aside:
            return Aside(os.getpid())

    def pids(of: Any) -> set[int]:
        return {batch.value for batch in of}

    with Where().prefetch(max_queue_size=20) as batches:  # else all of an epoch may be on its way when they are let go
        scripted(batches, never)
        choosing: Any = batches._live.pool.engine  # type: ignore[union-attr]
        have(batches, 1)
        if are_used_before:
            loop = iter(batches)
            assert next(loop).value == HERE  # the loop delivers the one that is compared
            assert HERE not in pids(loop)
            loop = iter(batches)
            next(loop)
            choosing._choose(Choice(0, "the test wants it"))
            assert HERE in pids(loop)
            choosing._choose(Choice(1, "the test wants it"))
        wait_for(lambda: choosing.engine.has_ended_workers)
        monkeypatch.setattr(idle_shutdown, "IDLE_S", 60.0)
        wait_for(lambda: choosing.is_ready)
        loop = iter(batches)
        assert (next(loop).value == HERE) == (not are_used_before)
        assert HERE not in pids(loop)


# -- workers that fail


class Unloadable(Drawn):
    """After the first epoch, workers cannot load it."""

    def on_epoch_end(self) -> None:
        self.noted += 1

    def __setstate__(self, state: Any) -> None:
        if state["noted"]:
            raise LookupError("there is nothing to load")
        self.__dict__.update(state)


class Fatal(Unloadable):
    """They do not even survive it."""

    def __setstate__(self, state: Any) -> None:
        if state["noted"] and os.getpid() != HERE:
            os._exit(7)
        self.__dict__.update(state)


@pytest.mark.parametrize("kind", [Unloadable, Fatal])
def test_workers_that_cannot_load_what_has_changed(kind: type[Drawn], caplog: pytest.LogCaptureFixture) -> None:
    with kind().prefetch() as batches:
        scripted(batches, never)
        have(batches, 2)
        got = [plain(batch) for _ in range(3) for batch in batches]
        assert batches.report().nb_workers == 0
    assert got == expected(kind, 3)
    assert "the batches are computed in the loop, without workers: " in caplog.text


def test_workers_that_must_be_there(caplog: pytest.LogCaptureFixture) -> None:
    with Unloadable().prefetch(job_timeout=60.0) as batches:
        got = [plain(batch) for batch in batches]
        with pytest.raises(LookupError, match="there is nothing to load"):
            list(batches)
    assert got == expected(Unloadable, 1)


def fail() -> None:
    raise MemoryError("of the engine's own")


def test_an_engine_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    with Drawn().prefetch() as batches:
        scripted(batches, never)
        have(batches, 2)
        loop = iter(batches)
        got = [plain(next(loop)) for _ in range(5)]
        choosing: Any = batches._live.pool.engine  # type: ignore[union-attr]
        choosing.engine.order(fail)
        got += [plain(batch) for batch in loop]
        got += [plain(batch) for batch in batches]
    assert got == expected(Drawn, 2)
    assert "without workers: of the engine's own" in caplog.text


@pytest.mark.parametrize(("before", "check"), [(5, 1), (LENGTH, 1), (LENGTH, 2)])
def test_an_engine_that_fails_while_it_is_asked(before: int, check: int, caplog: pytest.LogCaptureFixture) -> None:
    """At the ``check``-th time that it is asked whether it has failed, after so many batches: in the midst of a pass,
    or as the next one begins."""
    checks = itertools.count(1)
    with Drawn().prefetch() as batches:
        scripted(batches, never)
        if before == LENGTH:
            have(batches, 2)  # else alone, so far
        loop = iter(batches)
        got = [plain(next(loop)) for _ in range(before)]
        have(batches, 2)
        choosing: Any = batches._live.pool.engine  # type: ignore[union-attr]
        engine = choosing.engine
        ask = engine.check

        def fails() -> None:
            if next(checks) == check:
                engine.order(fail)
                wait_for(lambda: engine.fatal is not None)
            ask()

        engine.check = fails
        got += [plain(batch) for batch in loop]
        got += [plain(batch) for batch in batches]
    assert got == expected(Drawn, 2)
    assert next(checks) > check
    assert "without workers: of the engine's own" in caplog.text


# -- other threads


def test_close_while_workers_start() -> None:
    batches = Drawn().prefetch()
    scripted(batches, never)
    choosing: Any = batches._live.pool.engine  # type: ignore[union-attr]
    start, starting = choosing.workers.have, threading.Event()

    class Slow:
        def have(self, nb_workers: int) -> Any:
            starting.set()
            wait_for(lambda: choosing.has_ended)
            return start(nb_workers)

    choosing.workers = Slow()
    starter = threading.Thread(target=choosing._choose, args=[Choice(2, "the test wants it")])
    starter.start()
    starting.wait()
    batches.close()
    starter.join()
    assert choosing.engine.has_ended
    wait_for(lambda: not worker_processes())


def test_a_new_pass_keeps_the_workers() -> None:
    """An old pass that another thread reads is told that it is over, and does not take them."""
    with Drawn().prefetch() as batches:
        scripted(batches, at_random(1, 0.3))
        have(batches, 1)
        ends: list[str] = []

        def read(loop: Iterator[Any], is_begun: threading.Event, is_over: threading.Event) -> None:
            try:
                for number, _ in enumerate(loop):
                    is_begun.set()
                    if number == LENGTH // 2:  # else it might be at its end before the next one begins
                        is_over.wait()
            except BaseException as error:
                ends.append(type(error).__name__)
            else:
                ends.append("end")
            is_begun.set()

        for epoch in range(30):
            begun, over = threading.Event(), threading.Event()
            other = threading.Thread(target=read, args=[iter(batches), begun, over])
            other.start()
            begun.wait()
            following = iter(batches)
            over.set()
            assert [batch[1] for batch in following] == list(range(LENGTH)), epoch
            other.join()
    assert ends == [StalePassError.__name__] * 30


# -- the number of them


def test_more_and_fewer_at_once() -> None:
    draw = random.Random(3)
    with Drawn(400).prefetch() as batches:
        scripted(batches, never)
        have(batches, 1)
        engine: Any = batches._live.pool.engine.engine  # type: ignore[union-attr]
        for number, batch in enumerate(batches):
            assert batch[1] == number
            if number < 60:
                for _ in range(draw.randrange(4)):
                    engine.resize(draw.randrange(1, 5))
        engine.resize(4)
        engine.resize(1)
        wait_for(lambda: len(worker_processes()) == 1)


def test_jobs_that_become_slow_are_noticed() -> None:
    """However many fast ones came before: looks are counted in seconds."""

    class Slower(Sequence[int]):
        def __len__(self) -> int:
            return 3010

        def __getitem__(self, index: int) -> int:
            if index >= 3000:
                time.sleep(0.05)
            return index

    seen: list[float] = []
    with Slower().prefetch() as batches:
        chooser: Any = batches._live.pool.engine.chooser  # type: ignore[union-attr]
        chooser.add = lambda sample, left: seen.append(sample.job)
        assert len(list(batches)) == 3010
    assert sum(job > 0.02 for job in seen) >= 8


# -- Ctrl-C


@pytest.mark.parametrize("every", [3, 7, 11, 13, 17, 23])
def test_a_ctrl_c_at_any_line(every: int) -> None:
    """Raised before each ``every``-th line of these modules while batches are asked for; the loop goes on."""
    files, count, raised = (auto.__file__, auto_reading.__file__), 0, 0

    def in_frame(frame: types.FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        nonlocal count, raised
        if event == "line":
            count += 1
            if count % every == 0 and raised < 200:
                raised += 1
                raise KeyboardInterrupt
        return in_frame

    def trace(frame: types.FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        return in_frame if frame.f_code.co_filename in files else None

    with Drawn().prefetch() as batches:
        scripted(batches, at_random(every, 0.3))
        have(batches, 1)
        got: list[Any] = []
        for _ in range(2):
            loop = iter(batches)
            while True:
                before = sys.gettrace()
                sys.settrace(trace)
                try:
                    got.append(plain(next(loop)))
                except KeyboardInterrupt:
                    continue
                except StopIteration:
                    break
                finally:
                    sys.settrace(before)
    assert got == expected(Drawn, 2)
    assert raised > 20


def test_a_ctrl_c_behind_a_choice() -> None:
    """The workers were chosen, and not asked for: the next look asks for them."""
    with Drawn().prefetch() as batches:
        auto_engine = batches._live.pool.engine
        auto_engine.chooser.choice = Choice(1, "the test wants it")
        got: list[Any] = []
        epochs = 0
        while auto_engine.phase is not Phase.SHARED and epochs < 200:
            got += [plain(batch) for batch in batches]
            epochs += 1
            time.sleep(0.05)
        assert auto_engine.phase is Phase.SHARED
        got += [plain(batch) for batch in batches]
    assert got == expected(Drawn, epochs + 1)


@pytest.mark.parametrize("nb_workers", [0, 1])
def test_a_ctrl_c_before_the_workers_have_no_more_batches(nb_workers: int) -> None:
    """They are to be let go of, or to stay after all. In the next pass, nothing is taken for theirs that is not."""
    with Drawn().prefetch() as batches:
        scripted(batches, never)
        have(batches, 1)
        got = [plain(batch) for batch in batches]
        auto_engine = batches._live.pool.engine
        assert auto_engine.phase is Phase.SHARED
        auto_engine.chooser.choice = Choice(nb_workers, "the test wants it")
        got += [plain(batch) for batch in batches]
        assert auto_engine.phase is (Phase.SHARED if nb_workers else Phase.ALONE)
    assert got == expected(Drawn, 2)


def test_nothing_is_left_of_what_was_given_up() -> None:
    batches = Sealing().prefetch()
    scripted(batches, never)
    have(batches, 2)
    pids = [process.pid for process in worker_processes()]
    for _ in range(4):
        list(batches)
    wait_for(lambda: all(map(is_gone, pids)))
    gone = weakref.ref(batches)
    del batches
    gc.collect()
    assert gone() is None
