"""The cost of the figures that are always recorded (``batches.report()``): tiny batches with and without them.

Isolated: the recording in the loop, in the engine and in the workers, with 4 KB batches of jobs that take 5 us, where
it costs most.
"""

from __future__ import annotations

import functools
import time
from typing import Any

from benchmarks import command, core, jobs
from benchmarks.core import Numbers, Settings, Target, Way

_LENGTH = 10**8
_BLOCK = 256  # batches between two readings of the clock


def _nothing(*_: Any) -> Any:
    return ()


def _take_out_of_loop() -> None:
    from workers.report.loop import LoopFigures
    from workers.report.pool import PoolFigures

    for cls, names in ((LoopFigures, ("note", "begin")), (PoolFigures, ("finished", "finished_here", "used", "span"))):
        for name in names:
            setattr(cls, name, _nothing)


def _take_out_of_worker(number: int) -> None:
    """Remove the recording from a worker, before its first job."""
    from workers.job import context
    from workers.process import worker

    marks: list[Any] = []
    context.current.marks = None
    for module, name, value in (
        (worker, "begin_marks", lambda: marks),
        (worker, "mark", _nothing),
        (worker, "stages", _nothing),
        (context, "mark", _nothing),
        (worker, "_DETAILED_NS", 2**62),
        (worker, "_NOW_AND_THEN_NS", 2**62),
    ):
        setattr(module, name, value)


def _measure(has_figures: bool, settings: Settings) -> Numbers:
    from workers import prefetch

    if not has_figures:
        _take_out_of_loop()
    prepare = None if has_figures else _take_out_of_worker
    with prefetch(jobs.Tiny(_LENGTH), settings.num_workers, worker_init_fn=prepare) as batches:
        loop = iter(batches)
        for _ in range(2000):
            next(loop)
        number, start = 0, time.perf_counter()
        while (now := time.perf_counter()) < start + settings.seconds:
            for _ in range(_BLOCK):
                next(loop)
            number += _BLOCK
        return {"batches_per_s": number / (now - start)}


JOBS = {
    "tiny": core.Job(
        "4 KB",
        {
            "with": Way("with figures", functools.partial(_measure, True)),
            "without": Way("without", functools.partial(_measure, False)),
        },
    )
}
TARGETS = (
    Target(
        "with figures, x without",
        lambda r: r("tiny", "with", "batches_per_s") / r("tiny", "without", "batches_per_s"),
        ">=",
        0.99,
    ),
)
SUITE = core.Suite(__file__, JOBS, {"batches_per_s": "batches/s"}, TARGETS)

if __name__ == "__main__":
    command.main(SUITE, command.parser_of(SUITE, __doc__, seconds=3.0, deadline_s=60.0))
