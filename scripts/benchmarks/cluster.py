"""The cost of a Ray cluster compared with worker processes: the same jobs with ``executor="ray"`` on this machine.

The first three jobs take almost no time, so they measure the way of a batch to the loop. The other two compute, and are
limited by the cores of the machine.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import numpy as np

from benchmarks import command, core
from benchmarks.core import Numbers, Round, Settings, Target, Way

_LENGTH = 10**7


def _sequence(seconds: float, nbytes: int) -> Any:
    from workers import Sequence

    class Work(Sequence[Any]):
        def __len__(self) -> int:
            return _LENGTH

        def __getitem__(self, index: int) -> Any:
            until = time.thread_time() + seconds
            while time.thread_time() < until:
                pass
            return np.full(nbytes // 4, index, np.float32)

    return Work(seed=1)


def _measure(seconds: float, nbytes: int, executor: str, settings: Settings) -> Numbers:
    options: dict[str, Any] = {"executor": executor}
    if executor == "ray":
        options["executor_options"] = {"address": "local"}
    with _sequence(seconds, nbytes).prefetch(nb_workers=settings.num_workers, **options) as batches:
        loop = iter(batches)
        for _ in range(20):
            next(loop)
        number, start = 0, time.perf_counter()
        while (now := time.perf_counter()) < start + settings.seconds:
            for index, batch in zip(range(number + 20, number + 25), loop, strict=False):
                assert batch[0] == np.float32(index)
            number += 5
        each = (now - start) / number
    return {"batches_per_s": 1 / each, "ms": each * 1e3}


WORK = {
    "4 KB": (0.0, 4 << 10),
    "1 MB": (0.0, 1 << 20),
    "38.5 MB": (0.0, 38_535_168),
    "20 ms": (0.02, 1 << 20),
    "100 ms": (0.1, 1 << 20),
}
LABELS = {"20 ms": "jobs that compute for 20 ms, 1 MB", "100 ms": "jobs that compute for 100 ms, 1 MB"}
WAYS = {"process": ("worker processes", ()), "ray": ("Ray", ("ray",))}
JOBS = {
    key: core.Job(
        LABELS.get(key, key),
        {
            way: Way(label, functools.partial(_measure, seconds, nbytes, way), packages)
            for way, (label, packages) in WAYS.items()
        },
    )
    for key, (seconds, nbytes) in WORK.items()
}


def _of_processes(job: str, r: Round) -> float:
    return r(job, "ray", "batches_per_s") / r(job, "process", "batches_per_s")


TARGETS = tuple(
    Target(f"{job}: Ray, x worker processes", functools.partial(_of_processes, job), ">=", 0.9)
    for job in ("20 ms", "100 ms")
)
SUITE = core.Suite(__file__, JOBS, {"batches_per_s": "batches/s", "ms": "ms a batch"}, TARGETS)

if __name__ == "__main__":
    command.main(SUITE, command.parser_of(SUITE, __doc__, seconds=4.0, deadline_s=90.0))
