"""How many workers are chosen, from what a loop is measured to do: a model of a machine plays the loop."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from simulated import CASES, Case, Machine, play

from workers.engine.chooser import Choice, Chooser
from workers.engine.loop_sampler import LoopSampler
from workers.job.cores import CoreUse
from workers.report.pool import Figures


def run(chooser: Chooser, machine: Machine, seconds: float = 10.0, left: float = 1e9) -> list[int]:
    """The workers that were chosen, one after the other."""
    chosen, now = [chooser.nb_workers], 0.0
    while now < seconds:
        workers = chooser.nb_workers
        sample = machine.sample(workers, 0.1 if workers else 0.02)
        now += sample.seconds
        left -= sample.num_batches
        choice = chooser.add(sample, left)
        if choice is not None:
            assert choice.nb_workers == chooser.nb_workers
            assert choice.why
            chosen.append(choice.nb_workers)
    return chosen


def chooser(cores: int = 8, least: int = 0) -> Chooser:
    return Chooser(cores, least)


@pytest.mark.parametrize("cores", [1, 2, 4, 8])
def test_it_comes_near_the_best(cores: int) -> None:
    steps, jobs, shares_of_cpu = [0.0, 1e-4, 1e-3, 1e-2, 0.1], [1e-5, 1e-4, 1e-3, 5e-3, 0.05, 0.5], [1.0, 0.1]
    for step, job, job_cpu in itertools.product(steps, jobs, shares_of_cpu):
        machine = Machine(cores, step, job, job_cpu=job_cpu)
        chosen = run(chooser(cores), machine, seconds=10.0)
        told = (step, job, job_cpu, chosen)
        assert machine.interval(chosen[-1]) <= 1.06 * machine.best, told
        fewest = min(n for n in range(4 * cores + 1) if machine.interval(n) <= 1.06 * machine.best)
        assert chosen[-1] <= max(fewest + 1, 1.3 * fewest), told
        assert len(chosen) <= 6, told


def test_a_short_loop_goes_on_alone() -> None:
    assert run(chooser(), Machine(8, 0.0, 0.005), seconds=0.3, left=60) == [0]


def test_a_short_epoch_again_and_again_gets_workers() -> None:
    chosen, machine = chooser(), Machine(8, 0.001, 0.005)
    for _ in range(40):
        run(chosen, machine, seconds=0.12, left=20)
    assert chosen.nb_workers >= 5


def test_workers_that_do_not_help_are_let_go() -> None:
    """The memory is what limits it: two workers are as fast as eight."""
    machine = Machine(8, 0.001, 0.02, nbytes=40e6, memory=4e9)
    assert min(run(chooser(), machine)[-2:]) <= 3  # more are tried now and then


def test_workers_that_are_slower_than_the_loop_are_let_go() -> None:
    machine = Machine(2, 0.0, 1e-4, overhead=1e-3)
    chosen = run(chooser(2), machine)
    assert chosen[-1] == 0
    assert len(chosen) <= 7  # it is tried at 0, 2 and 6 seconds


def test_an_accident_starts_nothing() -> None:
    """Somebody else has the only core now and then; nobody would be faster."""
    it, machine = chooser(1), Machine(1, 0.005, 0.005)
    for number in range(300):
        sample = machine.sample(0, 0.02)
        if number % 5 == 1:
            sample = sample._replace(wait=sample.wait + 0.004, job=sample.job + 0.004)
        assert it.add(sample, 1e6) is None, number


def test_it_follows_the_loop() -> None:
    it, machine = chooser(), Machine(8, 0.02, 0.02)
    assert run(it, machine, 5.0)[-1] == 1
    assert run(it, dataclasses.replace(machine, step=0.005), 5.0)[-1] in (4, 5)
    assert run(it, machine, 12.0)[-1] in (1, 2)


def test_no_more_than_fit_into_memory() -> None:
    asked: list[int] = []

    def fits(workers: int) -> int:
        asked.append(workers)
        return min(workers, 3)

    it = Chooser(8, 0, fits)
    assert run(it, Machine(8, 0.001, 0.02, job_cpu=0.1), 10.0) == [0, 3]
    assert len(asked) <= 3  # it is not asked at each look


def test_as_many_as_fit_are_had_step_by_step() -> None:
    it = Chooser(8, 0, lambda workers: min(workers, it.nb_workers + 5))
    assert run(it, Machine(8, 0.001, 0.02, job_cpu=0.1), 10.0)[:3] == [0, 5, 10]
    assert it.nb_workers >= 18


def test_cores_that_come_later_are_used() -> None:
    it, machine = chooser(2), Machine(2, 0.001, 0.05)
    assert run(it, machine, 5.0)[-1] == 2
    it.have(8)
    assert run(it, dataclasses.replace(machine, cores=8), 5.0)[-1] == 8


def test_a_slow_tenth_gets_more_workers_than_the_formula_says() -> None:
    """One more would hardly show, so twice as many are tried."""
    chosen = run(chooser(8), Machine(8, 0.002, 0.0059, spread=0.6))
    assert chosen[-1] >= 6, chosen
    assert any(later >= 2 * earlier > 0 for earlier, later in itertools.pairwise(chosen)), chosen


@pytest.mark.parametrize(
    ("had_ns", "wanted_ns", "job_s", "job_cpu"),
    [
        (55_000_000, 60_000_000, 0.003, 55 / 60),
        (200_000_000, 300_000_000, 0.006, 200 / 120),  # most of it between the jobs
        (100_000_000, 60_000_000, 0.005, 1.0),  # some of it between the jobs
        (1_000_000, 0, 0.006, 1 / 120),
    ],
)
def test_workers_that_share_a_core_take_no_longer(had_ns: int, wanted_ns: int, job_s: float, job_cpu: float) -> None:
    """A job's time leaves out its wait for a core, so it is the same for any number of workers."""
    figures = Figures()
    sampler = LoopSampler(figures)
    figures.pool.started(0)
    figures.pool.finished(0, [6_000_000] * 40)
    figures.pool.used(CoreUse(had_ns, wanted_ns), 120_000_000)  # of every second job
    for at in range(40):
        figures.loop.note(at * 10_000_000, at * 10_000_000 + 1_000_000, 0)
    sample = sampler.sample(2)
    assert sample is not None
    assert sample.job == pytest.approx(job_s)
    assert sample.job_cpu == pytest.approx(job_cpu)


def test_there_are_always_as_many_as_must_be() -> None:
    it = chooser(8, least=1)
    it.choice = Choice(1, "")
    assert run(it, Machine(8, 0.0, 1e-5))[-1] >= 1


@pytest.mark.parametrize("tells_waits", [True, False])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}, {case.noise}")
def test_loads_that_it_was_not_made_for(case: Case, tells_waits: bool) -> None:
    """Each against an oracle that knows the future and always has the best number of workers."""

    def load(second: float) -> Machine:
        return dataclasses.replace(case.load(second), tells_waits=tells_waits)

    played = play(load, noise=case.noise, changes=case.changes, seed=1)
    assert played.regret < 0.05, played
    assert played.recovery <= 2.0, played


def test_two_numbers_are_compared_for_the_same_jobs() -> None:
    """Jobs become ten times as long: that is not the fault of the workers that run by then."""
    it, machine = chooser(2), Machine(2, 0.002, 0.001)
    assert run(it, machine, 3.0)[-1] == 1
    assert run(it, dataclasses.replace(machine, job=0.01), 5.0)[-1] == 2


def test_what_was_no_better_is_tried_again_at_growing_intervals() -> None:
    it, machine = chooser(2), Machine(2, 0.0, 1e-4, overhead=1e-3)
    tried, now = [], 0.0
    for _ in range(12_000):
        sample = machine.sample(it.nb_workers, 0.1 if it.nb_workers else 0.02)
        now += sample.seconds
        choice = it.add(sample, 1e9)
        if choice is not None and choice.nb_workers:
            tried.append(now)
    gaps = [later - earlier for earlier, later in itertools.pairwise(tried)]
    assert len(gaps) > 2
    assert all(later > 1.5 * earlier for earlier, later in itertools.pairwise(gaps))
