"""Plan how many machines a loop needs if a Ray cluster makes its batches (``executor="ray"``), and find its bottleneck.

The rate of batches is the least of these limits:

- compute:   machines x cores / (job + the object store's cost to a worker)
- link:      the consumer's link / bytes of a batch
- store:     1 / the object store's cost to the consumer for each batch, which grows with its bytes
- copy:      the same, with the copy that ``writable=True`` makes
- loop:      1 / its step

The object store costs some time for each batch and for each byte. The defaults were measured by ``--check`` on two
cores of a virtual machine; measure them on yours.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from typing import Any

import numpy as np

from workers.report.units import count

MOST = 1000  # machines, in the picture
ACTORS = (1, 2, 4, 8)


@dataclasses.dataclass(frozen=True)
class Loop:
    """The costs of one batch, in seconds unless noted otherwise."""

    job: float
    nbytes: float
    step: float
    link: float  # bytes a second
    cores: int  # of each machine
    worker_s: float  # the store's cost to a worker, for each batch ...
    consumer_s: float  # ... and the consumer
    store_rate: float  # bytes a second, of either
    copy_rate: float  # bytes a second; 0: nothing is copied

    def limits(self, machines: float) -> dict[str, float]:
        """Return {limit: batches a second}, e.g. {"compute": 640.0, "link": 300.0}."""
        found = {
            "compute": machines * self.cores / (self.job + self.worker_s + self.nbytes / self.store_rate),
            "link": self.link / max(self.nbytes, 1.0),
            "object store": 1 / (self.consumer_s + self.nbytes / self.store_rate),
        }
        if self.copy_rate:
            of_copy = self.consumer_s + self.nbytes / self.store_rate + self.nbytes / self.copy_rate
            found["the consumer's copy"] = 1 / of_copy
        if self.step:
            found["the loop's own step"] = 1 / self.step
        return found

    def rate(self, machines: float) -> float:
        """Return the batches a second on ``machines`` machines."""
        return min(self.limits(machines).values())

    @property
    def most(self) -> tuple[str, float]:
        """(The limit with any number of machines, batches a second), e.g. ("link", 300.0)."""
        limits = {name: rate for name, rate in self.limits(1).items() if name != "compute"}
        name = min(limits, key=lambda each: limits[each])
        return name, limits[name]

    @property
    def machines(self) -> int:
        """The number of machines beyond which more are useless."""
        return int(np.ceil(self.most[1] / self.limits(1)["compute"]))


def told(loop: Loop) -> str:
    """Return the plan in words."""
    name, most = loop.most
    machines = loop.machines
    lines = [f"{count(machines, 'machine')} of {loop.cores} cores: {loop.rate(machines):,.1f} batches a second."]
    if name == "the loop's own step":
        lines.append(f"More are of no use: the loop asks for {most:,.1f} a second.")
    else:
        lines.append(f"More are of no use: {name} lets no more through than {most:,.1f} a second.")
        if loop.step and most < 0.95 / loop.step:
            lines.append(f"The loop would take {1 / loop.step:,.1f} a second: {_advice(name)}.")
    return "\n".join(lines)


def _advice(name: str) -> str:
    return {
        "link": "make the batches smaller (uint8, or augment behind the link), or read shards on several machines",
        "object store": "make larger batches, fewer a second, or read shards on several machines",
        "the consumer's copy": "do without writable=True",
    }[name]


def drawn(loop: Loop, path: str) -> None:
    """Draw the rate over the number of machines, and each limit, to ``path``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    machines = np.unique(np.geomspace(1, MOST, 200).astype(int))
    for name in loop.limits(1):
        axes.plot(machines, [loop.limits(each)[name] for each in machines], "--", linewidth=1, label=name)
    axes.plot(machines, [loop.rate(each) for each in machines], "k", linewidth=2.5, label="what comes")
    if 1 <= loop.machines <= MOST:
        axes.axvline(loop.machines, color="0.7", linewidth=1, zorder=0)
        axes.annotate(f" {count(loop.machines, 'machine')}", (loop.machines, loop.rate(1)), color="0.3")
    axes.set(xscale="log", yscale="log", xlabel=f"machines of {loop.cores} cores", ylabel="batches a second")
    axes.set_title(
        f"job {loop.job:g} s, batch {loop.nbytes / 1e6:g} MB, step {loop.step:g} s, link {loop.link / 1e9:g} GB/s"
    )
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


# -- measured


def _sequence(job: float, nbytes: int) -> Any:
    from workers import Sequence

    class Waiting(Sequence[Any]):
        """A sequence whose jobs wait, so that more of them than there are cores run at the same time."""

        def __len__(self) -> int:
            return 100_000

        def __getitem__(self, index: int) -> Any:
            if job:
                time.sleep(job)
            return np.full(nbytes, index % 256, np.uint8)

    return Waiting(seed=1)


def measured(job: float, nbytes: int, actors: int, seconds: float) -> float:
    """Return the batches a second from Ray on this machine."""
    options = {"address": "local", "resources": {"CPU": 0}}
    with _sequence(job, nbytes).prefetch(nb_workers=actors, executor="ray", executor_options=options) as batches:
        loop = iter(batches)
        for _ in range(5 * actors):
            next(loop)
        start, number = time.perf_counter(), 0
        while time.perf_counter() < start + seconds:
            next(loop)
            number += 1
        return number / (time.perf_counter() - start)


def costs(nbytes: int, seconds: float) -> float:
    """Return the seconds per batch of ``nbytes`` whose job takes no time, with one actor."""
    return 1 / statistics.median(measured(0.0, nbytes, 1, seconds) for _ in range(3))


def check(job: float, nbytes: int, seconds: float) -> None:
    """Compare the model with runs at 1 to 8 actors, and print the error."""
    small, large = 200_000, 8_000_000  # bytes; both are held in the object store
    small_s, large_s = costs(small, seconds), costs(large, seconds)
    rate = (large - small) / max(large_s - small_s, 1e-9)
    each_s = max(small_s - small / rate, 0.0)
    print(f"the object store costs {each_s * 1e3:.2f} ms for each batch, and moves {rate / 1e9:.2f} GB a second")
    loop = Loop(job, nbytes, 0.0, np.inf, 1, each_s, each_s, rate, 0.0)
    print(f"\njobs that wait {job:g} s, batches of {nbytes / 1e6:g} MB:")
    print(f"{'actors':>6}  {'model':>8}  {'measured':>8}  {'error':>6}   batches a second")
    for actors in ACTORS:
        model, found = loop.rate(actors), measured(job, nbytes, actors, seconds)
        print(f"{actors:6}  {model:8.1f}  {found:8.1f}  {model / found - 1:+6.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", type=float, default=0.05, help="seconds of one core for a batch (0.05)")
    parser.add_argument("--nbytes", type=float, default=4e6, help="of a batch (4e6)")
    parser.add_argument("--step", type=float, default=0.002, help="seconds of the loop between two batches (0.002)")
    parser.add_argument("--link", type=float, default=1.2e9, help="bytes a second into the consumer's machine (1.2e9)")
    parser.add_argument("--cores", type=int, default=32, help="of each machine (32)")
    parser.add_argument("--worker-s", type=float, default=0.003, help="what the store costs a worker a batch (0.003)")
    parser.add_argument("--consumer-s", type=float, default=0.003, help="what it costs the consumer (0.003)")
    parser.add_argument("--store-rate", type=float, default=2e9, help="bytes a second of the store (2e9)")
    parser.add_argument("--writable", action="store_true", help="batches are copied, at --copy-rate")
    parser.add_argument("--copy-rate", type=float, default=5e9, help="bytes a second (5e9)")
    parser.add_argument("--png", default="plan.png", help="where the picture goes (plan.png)")
    parser.add_argument("--check", action="store_true", help="measure on this machine, and print the model's error")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run of --check (4)")
    given = parser.parse_args()
    for name in ("job", "nbytes", "step", "link", "cores", "store_rate", "copy_rate", "seconds"):
        value = getattr(given, name)
        if value < 0 or (value == 0 and name not in ("nbytes", "step")):
            parser.error(f"--{name.replace('_', '-')} must be greater than 0, not {value:g}")
    if given.check:
        check(given.job, int(given.nbytes), given.seconds)
        return
    copy_rate = given.copy_rate if given.writable else 0.0
    names = [field.name for field in dataclasses.fields(Loop) if field.name != "copy_rate"]
    loop = Loop(**{name: getattr(given, name) for name in names}, copy_rate=copy_rate)
    print(told(loop))
    drawn(loop, given.png)
    print(f"picture: {given.png}")


if __name__ == "__main__":
    main()
