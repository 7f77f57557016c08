"""A report as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import units

if TYPE_CHECKING:
    from .report import Report, Spread


def lines(report: Report) -> Iterator[str]:
    """The report as a table, line by line; the verdict first."""
    rate = report.num_batches / max(report.seconds, 1e-9)
    yield report.verdict
    yield ""
    yield _row("batches", f"{report.num_batches:,} in {units.seconds(report.seconds)}", f"{rate:,.4g} a second")
    if report.nbytes:
        speed = units.nbytes(report.nbytes / max(report.seconds, 1e-9))
        yield _row("bytes", units.nbytes(report.nbytes), f"{speed} a second")
    yield _row("queue", f"{report.depth:.1f} ready on average", f"at most {report.bound:,} ahead")
    yield _row("workers", f"{report.nb_workers} ({report.executor})", f"{report.cores} cores")
    yield _row("shared memory", f"{units.count(report.segments_made, 'piece')} made")
    yield ""
    yield _row("", "median", "p99", "in all", "share")
    for name, spread in (("wait", report.wait), ("step", report.step)):
        yield _spread(name, spread, report.wait.total + report.step.total)
    yield _spread("job", report.job, report.job.total)
    in_stages = sum(spread.total for spread in report.stages.values())
    for name, spread in report.stages.items():
        yield _spread(f"  {name}", spread, in_stages)
    if report.workers:
        yield ""
        yield _row("worker", "busy", "jobs", "restarts", "CPU", "memory")
    for worker in report.workers:
        cpu = "" if worker.cpu is None else units.share(worker.cpu)
        memory = "" if worker.nbytes is None else units.nbytes(worker.nbytes)
        name = f"{worker.number}" + (f" ({worker.pid})" if worker.pid else "")
        yield _row(name, units.share(worker.busy), f"{worker.num_jobs:,}", str(worker.restarts), cpu, memory)
    yield from _lists(report)


def _spread(name: str, spread: Spread, total: float) -> str:
    each = (spread.median, spread.p99, spread.total)
    return _row(name, *map(units.seconds, each), units.share(spread.total / max(total, 1e-9)))


def _lists(report: Report) -> Iterator[str]:
    if report.slowest:
        some = (f"{slow.epoch}/{slow.index} {units.seconds(slow.seconds)}" for slow in report.slowest)
        yield ""
        yield f"slowest (epoch/index): {', '.join(some)}"
    for start in report.starts[-3:]:
        why = f": {start.why}" if start.why else ""
        cost = f"{units.seconds(start.seconds)}, first batch after {units.seconds(start.wait)}"
        yield f"start of epoch {start.epoch}: {cost}{why}"
    for choice in report.choices:
        yield f"chosen: {choice}"


def _row(name: str, *cells: str) -> str:
    return f"{name:<18}" + "".join(f"{cell:<24}" if len(cells) < 4 else f"{cell:>10}" for cell in cells).rstrip()
