"""What a job draws is a function of (seed, epoch, index), and the user's own generators are left alone."""

from __future__ import annotations

import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from workers import current_job, current_rng, current_seed
from workers.job import seeding, stream

GOLDEN = (0.9592997259539284, 0.5835454247050715, -0.008224415965563362, 0.5403065287357184, -1.0008399362271208)


def draws(seed: int, epoch: int, index: int) -> tuple[Any, ...]:
    def job() -> tuple[Any, ...]:
        assert current_job() == (epoch, index, 0, None)
        return current_rng().random(), random.random(), random.gauss(0, 1), np.random.random(), np.random.normal()

    return seeding.run_job(seeding.Stream(seed), seeding.Job(epoch, index), job)


def test_draws_depend_on_seed_epoch_and_index_alone() -> None:
    places = [(seed, epoch, index) for seed in (0, 1, 2**63 - 1) for epoch in range(4) for index in range(20)]
    first = {place: draws(*place) for place in places}
    random.shuffle(places)
    assert all(draws(*place) == first[place] for place in places)
    for column in zip(*first.values(), strict=True):
        assert len(set(column)) == len(places)


def test_numbers_stay_the_same_from_release_to_release() -> None:
    """Whoever trains again with the same seed gets the same batches."""
    assert draws(1, 2, 3) == GOLDEN


def test_no_two_jobs_of_an_epoch_share_a_numpy_seed() -> None:
    assert len({stream.mix32(index + 12345) for index in range(300_000)}) == 300_000


@pytest.mark.parametrize("num_before", [0, 1, 2, 700, 1500])
@pytest.mark.parametrize("by_hand", [False, True])
def test_the_users_generators_are_left_as_they_were(
    num_before: int, by_hand: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the second of two Gaussians that both generators keep for the next call; and a generator of his own."""
    if by_hand:
        monkeypatch.delattr(np.random, "set_bit_generator")  # as before numpy 1.24
    for spoil in (False, True):
        random.seed(1)
        np.random.seed(1)
        for _ in range(num_before):
            random.gauss(0, 1)
            np.random.normal()
        if spoil:
            draws(5, 6, 7)
            draws(5, 6, 8)
        after = random.gauss(0, 1), np.random.normal(), random.random(), np.random.random()
        if not spoil:
            expected = after
    assert after == expected


def test_a_bit_generator_of_the_users() -> None:
    """One that he has put in is left in; one that a job puts in is taken out."""
    own, before = np.random.PCG64(3), np.random.get_bit_generator()
    np.random.set_bit_generator(own)
    try:
        state = own.state
        draws(1, 2, 3)
        assert np.random.get_bit_generator() is own
        assert own.state == state
    finally:
        np.random.set_bit_generator(before)
    stream, job = seeding.Stream(1), seeding.Job(0, 0)
    seeding.run_job(stream, job, lambda: np.random.set_bit_generator(own))
    assert np.random.get_bit_generator() is before


def test_a_failing_job_restores_them_too() -> None:
    np.random.seed(1)
    expected = np.random.random()
    np.random.seed(1)
    with pytest.raises(ZeroDivisionError):
        seeding.run_job(seeding.Stream(0), seeding.Job(0, 0), lambda: 1 / 0)
    assert np.random.random() == expected
    assert current_job() is None


def test_a_generator_that_is_kept_is_set_for_each_job() -> None:
    """``self.rng = current_rng()`` in the first job does not make the others depend on it."""
    stream = seeding.Stream(3)
    kept: list[Any] = []
    got = []
    for index in (0, 1, 2, 1):
        seeding.run_job(
            stream, seeding.Job(0, index), lambda: (kept or kept.append(current_rng()), got.append(kept[0].random()))
        )
    assert got[1] == got[3]
    assert len(set(got)) == 3


def test_outside_of_a_job() -> None:
    assert current_job() is None
    assert current_rng().random() != current_rng().random()


@pytest.mark.parametrize(
    ("seed", "error"), [(-1, ValueError), (2**63, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_bad_seeds(seed: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="seed"):
        seeding.check_seed(seed)


def test_a_job_within_a_job() -> None:
    """Such as a loop in on_epoch_end: the outer one goes on with its own draws."""

    def outer(has_inner: bool) -> Any:
        before = np.random.normal(), random.random()
        if has_inner:
            seeding.run_job(seeding.Stream(2), seeding.Job(3, 4), lambda: (np.random.normal(), random.random()))
        return before, np.random.normal(), np.random.random(), random.random()

    found = [seeding.run_job(seeding.Stream(1), seeding.Job(0, 0), lambda has=has: outer(has)) for has in (False, True)]
    assert found[0] == found[1]


# -- draws in threads of a job's own

KEYS: list[Any] = [0, 1, -1, 2**70, "0", "1", "", "a", ("a", "b"), ("ab",), "ab", (), ((),), (1, 2), (12,), ((1,), 2)]


def in_job(function: Any, seed: int = 1, epoch: int = 0, index: int = 0, seed_globals: bool = True) -> Any:
    return seeding.run_job(seeding.Stream(seed), seeding.Job(epoch, index), function, seed_globals)


def in_thread(function: Any) -> Any:
    with ThreadPoolExecutor(1) as threads:
        return threads.submit(function).result()


def test_streams_of_keys() -> None:
    def draw() -> Any:
        return [current_rng(key).random() for key in KEYS]

    places = [(seed, epoch, index) for seed in (0, 1, 2**63 - 1) for epoch in range(2) for index in range(3)]
    drawn = {place: in_job(draw, *place) for place in places}
    numbers = [number for each in drawn.values() for number in each]
    numbers += [draws(*place)[0] for place in places]
    assert len(set(numbers)) == len(numbers)
    for place in places:
        assert in_job(draw, *place) == drawn[place]
    assert drawn[1, 1, 2][:2] == [0.8536406978945543, 0.4194072962480587]  # from release to release


def test_a_key_is_drawn_the_same_in_any_thread_and_order() -> None:
    def here() -> Any:
        return {key: current_rng(key).random() for key in KEYS}

    def there() -> Any:
        current_rng().random()
        return {key: in_thread(lambda key=key: current_rng(key).random()) for key in reversed(KEYS)}

    assert in_job(here) == in_job(there)


def test_a_key_goes_on_within_a_job() -> None:
    def job() -> Any:
        generator = current_rng("a")
        assert current_rng("a") is in_thread(lambda: current_rng("a")) is generator
        assert current_rng(1) is current_rng(np.int64(1))
        return generator.random(), current_rng("a").random()

    shared = seeding.Stream(1)
    one, two = (seeding.run_job(shared, seeding.Job(0, 0), job) for _ in range(2))
    assert one == two
    assert one[0] != one[1]


@pytest.mark.parametrize("key", [1.5, True, b"a", ["a"], {"a": 1}, (1, None), np.arange(3)])
def test_bad_keys(key: Any) -> None:
    with pytest.raises(TypeError, match="key of current_rng"):
        current_rng(key)
    with pytest.raises(TypeError, match="key of current_rng"):
        in_job(lambda: current_rng(key))


def test_keys_outside_of_a_job() -> None:
    assert current_rng("a").random() != current_rng("a").random()


@pytest.mark.parametrize("name", ["current_rng", "current_seed"])
def test_a_thread_that_draws_without_a_key_is_named_once(name: str, caplog: pytest.LogCaptureFixture) -> None:
    stream._warn_of_threads.cache_clear()
    draw = {"current_rng": lambda: current_rng().random(), "current_seed": lambda: current_seed().tolist()}[name]
    drawn = in_job(lambda: [in_thread(draw), in_thread(draw)])
    assert in_job(lambda: [draw(), draw()]) == drawn  # that of the job
    assert len(caplog.records) == 1
    assert f"{name}() was called in a thread" in caplog.text
    assert "current_rng(key)" in caplog.text


def test_a_thread_belongs_to_the_one_job_that_runs() -> None:
    def outer() -> Any:
        in_job(lambda: None, index=5)  # within it, and over
        return in_thread(lambda: current_rng("a").random())

    assert in_job(outer) == in_job(lambda: current_rng("a").random())
    with pytest.raises(ZeroDivisionError):
        in_job(lambda: 1 / 0)
    assert in_thread(lambda: current_rng("a").random()) != in_thread(lambda: current_rng("a").random())


def test_the_main_thread_belongs_to_no_job() -> None:
    """It is the loop's, while another thread runs a job."""
    begun, go_on = threading.Event(), threading.Event()

    def job() -> Any:
        begun.set()
        assert go_on.wait(60)
        return current_rng().random(), current_rng("a").random()

    with ThreadPoolExecutor(1) as threads:
        result = threads.submit(in_job, job)
        assert begun.wait(60)
        current_rng().random(), current_rng("a").random()
        go_on.set()
        assert result.result() == in_job(lambda: (current_rng().random(), current_rng("a").random()))


def test_a_thread_while_several_jobs_run(caplog: pytest.LogCaptureFixture) -> None:
    stream._warn_of_threads.cache_clear()
    are_both = threading.Barrier(2, timeout=60)

    def job() -> Any:
        are_both.wait()
        with pytest.raises(RuntimeError, match="call current_rng\\(key\\) in the job's own thread"):
            in_thread(lambda: current_rng("a"))
        in_thread(current_rng)
        generator = current_rng("a")
        are_both.wait()
        return in_thread(generator.random)

    with ThreadPoolExecutor(2) as threads:
        results = [threads.submit(in_job, job, index=index, seed_globals=False) for index in range(2)]
        drawn = [each.result() for each in results]
    assert drawn == [in_job(lambda: current_rng("a").random(), index=index) for index in range(2)]
    assert "several jobs run in this process" in caplog.text


def test_a_job_within_a_job_hides_no_import(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a job has imported before another job ran in it is still new to it: what it drew then was not seeded."""
    from workers.job import context

    monkeypatch.setattr(seeding, "THAT_DRAW", ("a_framework_of_this_test",))
    found = []

    def outer() -> None:
        if not found:
            sys.modules["a_framework_of_this_test"] = sys
        seeding.run_seeded(seeding.Stream(2), lambda: None, lambda: None)
        found.append(seeding.unseeded(seeding.Stream(1)))

    try:
        seeding.run_seeded(seeding.Stream(1), lambda: None, outer)
    finally:
        del sys.modules["a_framework_of_this_test"]
    assert found == ["imported a_framework_of_this_test", ""]
    assert context.current.loaded == ()
