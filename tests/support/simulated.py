"""A simulated machine on which the chooser of ``nb_workers="auto"`` is tried: what it chooses, and what that costs."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable
from typing import Any

from workers.engine.chooser import _FOR_EACH_CORE, Chooser
from workers.engine.loop_sampler import Sample


@dataclasses.dataclass(frozen=True)
class Machine:
    """What a loop would do now: all of a batch, in seconds."""

    cores: int
    step: float
    job: float
    step_cpu: float = 1.0  # cores that the step keeps busy
    job_cpu: float = 1.0
    taken: float = 0.0  # cores that other programs take, which nobody is told
    overhead: float = 30e-6
    nbytes: float = 0.0
    memory: float = 1e12  # bytes a second that all cores together can move
    tells_waits: bool = True  # how long jobs wait for cores is known, and is no part of their time
    spread: float = 0.0  # how much longer batches take in order if their jobs differ: (1 + spread / workers) times

    def interval(self, workers: int) -> float:
        free = max(0.5, self.cores - self.taken)
        alone = self.step * max(1.0, self.step_cpu / free) + self.job * max(1.0, self.job_cpu / free)
        if workers == 0:
            return max(alone, self.nbytes / self.memory)
        cpu = self.step * self.step_cpu + self.job * self.job_cpu + self.overhead
        in_order = (1 + self.spread / workers) * max(self.step + self.overhead, self.job / workers)
        return max(in_order, cpu / free, self.nbytes / self.memory)

    def sample(self, workers: int, seconds: float, noise: Callable[[], float] = lambda: 1.0) -> Sample:
        """What ``LoopSampler`` would measure in this time."""
        interval = self.interval(workers)
        number = max(1 if not workers else 2 * max(2, workers), int(seconds / interval))
        scatter = [1 + (noise() - 1) / math.sqrt(number) for _ in range(3)]
        it = dataclasses.replace(self, step=self.step * scatter[0], job=self.job * scatter[1])
        return it._sample(workers, number, 1 + 0.05 * abs(scatter[2] - 1))

    def _sample(self, workers: int, number: int, longer: float) -> Sample:
        free, interval = max(0.5, self.cores - self.taken), self.interval(workers) * longer
        if not workers:
            step = min(self.step * max(1.0, self.step_cpu / free), interval)
            cpu = self.step * self.step_cpu + self.job * self.job_cpu
            is_told = self.tells_waits and interval > self.nbytes / self.memory
            return Sample(number, interval - step, step, self.job if is_told else interval - step, cpu, self.job_cpu)
        crowd = max(1.0, (workers * self.job_cpu + self.step_cpu) / free)  # for each core
        is_step = self.step + self.overhead >= 0.98 * interval
        step = self.step if is_step else min(self.step * min(crowd, interval / max(self.step, 1e-9)), interval)
        job = self.job
        if not is_step and (not self.tells_waits or self.interval(workers) <= self.nbytes / self.memory):
            job = max(self.job, workers * interval / (1 + self.spread / workers))
        return Sample(number, interval - step, step, job, self.step * self.step_cpu, self.job_cpu)

    @property
    def best(self) -> float:
        return min(map(self.interval, range(_FOR_EACH_CORE * self.cores + 1)))


Load = Callable[[float], Machine]  # of the second


@dataclasses.dataclass
class Played:
    """What has become of a load.

    Attributes:
        chosen: [(second, workers)].
        regret: share of the batches of an oracle that were not delivered, from 3 s on.
        recovery: the longest time from a change until the loop is within 10 % of the oracle, in seconds.
    """

    chosen: list[tuple[float, int]]
    regret: float
    recovery: float


def play(load: Load, seconds: float = 40.0, noise: float = 0.0, seed: int = 0, changes: Any = ()) -> Played:
    """Play ``load`` on a chooser of ``nb_workers="auto"``. ``changes``: the seconds at which the load changes."""
    rng = random.Random(seed)
    chooser, now = Chooser(load(0.0).cores, 0), 0.0
    chosen = [(0.0, 0)]
    delivered = possible = 0.0
    runs, starts_at = 0, math.inf  # the workers that run, and when those that were started are ready
    waits: dict[float, float | None] = dict.fromkeys(changes)  # {second of a change: seconds until it was coped with}
    while now < seconds:
        machine = load(now)
        chooser.have(machine.cores)
        if now >= starts_at:
            runs, starts_at = chooser.nb_workers, math.inf
        sample = machine.sample(runs, 0.1 if runs else 0.02, lambda: 1 + noise * rng.uniform(-1.7, 1.7))
        now += sample.seconds
        if now > 3:
            delivered += sample.num_batches
            possible += sample.num_batches * machine.interval(runs) / machine.best
        for each in changes:
            if each < now and waits[each] is None and load(now).interval(runs) <= 1.1 * load(now).best:
                waits[each] = now - each
        if runs != chooser.nb_workers:
            continue  # they start meanwhile
        choice = chooser.add(sample, 1e9)
        if choice is not None:
            assert choice.why
            chosen.append((now, choice.nb_workers))
            if choice.nb_workers > runs:
                starts_at = now + (0.3 if not runs else 0.05)
            else:
                runs = choice.nb_workers
    return Played(
        chosen,
        1 - delivered / possible if possible else 0.0,
        max((math.inf if each is None else each for each in waits.values()), default=0.0),
    )


@dataclasses.dataclass(frozen=True)
class Case:
    """A load that is played: its name, the load, the share by which its measurements scatter, and when it changes."""

    name: str
    load: Load
    noise: float = 0.0
    changes: tuple[float, ...] = ()


def _steady() -> list[Case]:
    found = []
    for cores in (1, 2, 8):
        for step, job in ((0.0, 0.001), (0.001, 0.01), (0.003, 0.003), (0.01, 0.001), (0.002, 0.1)):
            machine = Machine(cores, step, job)
            found.append(
                Case(f"{cores} cores, step {step * 1e3:g} ms, job {job * 1e3:g} ms", lambda _, it=machine: it, 0.3)
            )
    for cores in (2, 8):
        waiting = Machine(cores, 0.001, 0.02, job_cpu=0.05)
        tiny = Machine(cores, 0.0, 5e-6)
        found += [
            Case(f"{cores} cores, jobs that wait", lambda _, it=waiting: it, 0.3),
            Case(f"{cores} cores, batches of 5 us", lambda _, it=tiny: it, 0.3),
        ]
    return found


def _of_hardware() -> list[Case]:
    found = []
    for cores in (2, 8):
        saturated = Machine(cores, 0.001, 0.02, nbytes=40e6, memory=2.5e9)
        blas = Machine(cores, 0.01, 0.01, step_cpu=cores)
        slow_tenth = Machine(cores, 0.002, 0.0059, spread=0.4)
        costly = Machine(cores, 0.0, 1e-4, overhead=1e-3)
        others = Machine(cores, 0.002, 0.008, taken=cores / 2)
        found += [
            Case(f"{cores} cores, memory that saturates", lambda _, it=saturated: it, 0.3),
            Case(f"{cores} cores, BLAS threads in the loop", lambda _, it=blas: it, 0.3),
            Case(f"{cores} cores, a slow tenth", lambda _, it=slow_tenth: it, 0.3),
            Case(f"{cores} cores, batches dear to send", lambda _, it=costly: it, 0.3),
            Case(f"{cores} cores, half of them taken by others", lambda _, it=others: it, 0.3),
        ]
    return found


def _changing() -> list[Case]:
    """Loads that change once, at 15 s, and go back at 28 s."""
    pairs = {
        "jobs of 1 ms become 10 ms": (Machine(2, 0.002, 0.001), Machine(2, 0.002, 0.01)),
        "jobs of 10 ms become 1 ms": (Machine(8, 0.002, 0.01), Machine(8, 0.002, 0.001)),
        "jobs become four times as long": (Machine(8, 0.002, 0.005), Machine(8, 0.002, 0.02)),
        "the step grows": (Machine(8, 0.001, 0.01), Machine(8, 0.01, 0.01)),
        "the step shrinks": (Machine(8, 0.01, 0.01), Machine(8, 0.001, 0.01)),
        "jobs begin to wait": (Machine(2, 0.001, 0.01), Machine(2, 0.001, 0.02, job_cpu=0.1)),
        "batches become tiny": (Machine(2, 0.001, 0.01), Machine(2, 0.0, 1e-5)),
        "batches were tiny": (Machine(2, 0.0, 1e-5), Machine(2, 0.001, 0.01)),
        "cores come": (Machine(2, 0.001, 0.02), Machine(8, 0.001, 0.02)),
        "cores go": (Machine(8, 0.001, 0.02), Machine(2, 0.001, 0.02)),
        "other programs come": (Machine(8, 0.001, 0.02), Machine(8, 0.001, 0.02, taken=5)),
        "other programs go": (Machine(8, 0.001, 0.02, taken=5), Machine(8, 0.001, 0.02)),
        "memory becomes slow": (
            Machine(8, 0.001, 0.02, nbytes=40e6),
            Machine(8, 0.001, 0.02, nbytes=40e6, memory=2.5e9),
        ),
        "memory becomes fast": (
            Machine(8, 0.001, 0.02, nbytes=40e6, memory=2.5e9),
            Machine(8, 0.001, 0.02, nbytes=40e6),
        ),
        "validation": (Machine(8, 0.02, 0.01), Machine(8, 0.002, 0.01)),
    }
    return [
        Case(name, lambda at, one=one, other=other: other if 15 <= at < 28 else one, noise, (15.0, 28.0))
        for name, (one, other) in pairs.items()
        for noise in (0.0, 0.3)
    ]


def _drifting() -> list[Case]:
    def grows(at: float) -> Machine:
        return Machine(8, 0.002, 0.002 * (1 + at / 4))

    def swings(at: float) -> Machine:
        return Machine(8, 0.002, 0.012 + 0.008 * math.sin(at / 3))

    def step_swings(at: float) -> Machine:
        return Machine(8, 0.006 + 0.004 * math.sin(at / 3), 0.02)

    def pauses(at: float) -> Machine:
        return Machine(2, 1.0 if 10 < at % 12 < 11 else 0.002, 0.004)

    def bursts(at: float) -> Machine:
        return Machine(8, 0.004, 0.04 if at % 5 < 0.5 else 0.004)

    some = {
        "jobs grow": grows,
        "jobs swing": swings,
        "the step swings": step_swings,
        "pauses": pauses,
        "bursts": bursts,
    }
    return [Case(name, load, noise) for name, load in some.items() for noise in (0.0, 0.3)]


CASES = [*_steady(), *_of_hardware(), *_changing(), *_drifting()]
