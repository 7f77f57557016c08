"""How far ahead the workers are, and how many slots they keep for it."""

from __future__ import annotations

import pytest

from workers.batch import free_slots
from workers.batch.free_slots import Peak
from workers.engine.bounds import Bounds

MS = 1_000_000


def bound_after(jobs: list[tuple[float, int]], num_workers: int = 2) -> int:
    """``jobs``: (ms, bytes)."""
    bounds = Bounds(num_workers)
    for ms, nbytes in jobs:
        bounds.learn(int(ms * MS), nbytes)
    return bounds.bound()


def test_the_bound_left_to_us() -> None:
    assert bound_after([]) == 6
    assert bound_after([(5.0, 1000)] * 50) == 20  # 50 ms of work for each worker
    assert bound_after([(0.001, 1000)] * 50) == 1024
    assert bound_after([(0.1, 4 << 20)] * 50) == 16  # 64 MB
    assert bound_after([(0.1, 40 << 20)] * 50) == 6
    assert bound_after([(500.0, 1000)] * 50, 4) == 10


def test_where_a_message_costs_much_more_jobs_travel_together() -> None:
    for bundle_ns, bundle, bound in ((10 * MS, 1, 6), (100 * MS, 5, 50)):
        bounds = Bounds(2, bundle_ns=bundle_ns)
        assert bounds.bundle() == 1
        for _ in range(50):
            bounds.learn(20 * MS, 1000)
        assert (bounds.bundle(), bounds.bound()) == (bundle, bound)


def test_a_loop_that_is_away_finds_the_batches_of_that_time() -> None:
    bounds = Bounds(2)
    for _ in range(50):
        bounds.learn(4 * MS, 1000)
    assert bounds.bound() == 25
    bounds.is_away(200 * MS)
    assert bounds.bound() == 100
    bounds.is_away(60_000 * MS)  # no more than a second
    assert bounds.bound() == 500
    bounds.is_away(1 * MS)
    assert bounds.bound() == 25


def test_one_slow_job_among_many() -> None:
    """The bound has room for what the other workers do meanwhile, and forgets it in time."""
    slow_one = [(5.0, 1000)] * 50 + [(100.0, 1000)] + [(5.0, 1000)] * 19
    assert 40 <= bound_after(slow_one) <= 80
    assert bound_after(slow_one + [(5.0, 1000)] * 1000) in (19, 20)
    assert bound_after([(ms, 40 << 20) for ms, _ in slow_one]) == 6  # but no more memory


def test_as_much_memory_stays_as_was_in_use_lately(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(free_slots.time, "monotonic", lambda: now_s)
    peak = Peak()
    for used in (3, 9, 2):
        peak.see(used)
    assert not (peak.is_due() and peak.is_enough(8))
    now_s += 1.0
    assert peak.is_due()
    assert peak.is_enough(9)
    assert not peak.is_due()  # slowly
    now_s += 1.0
    assert peak.is_due()
    now_s += 3.0
    assert peak.is_due()  # a new window begins, but it is not long ago
    assert not peak.is_enough(8)
    peak.see(4)
    now_s += 4.5
    assert peak.is_due()
    assert peak.is_enough(4)
    assert not peak.is_enough(3)


def test_a_pass_of_which_nothing_was_made_ahead_begins_with_single_jobs() -> None:
    bounds = Bounds(2)
    bounds.learn(1_000_000, 1000)
    whole = bounds.bundle()
    assert whole == 10
    sizes = [bounds.bundle_behind(num_sent) for num_sent in range(100)]
    assert sizes[:8] == [1] * 8
    assert sizes == sorted(sizes)
    assert sizes[-1] == whole
