"""Formats a report as text: the verdict, and a table of the figures."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import units

if TYPE_CHECKING:
    from .report import Report, Spread


_WIDTH = 100  # characters in a line
_NAME = 18  # characters in the first column


def lines(report: Report) -> Iterator[str]:
    """Yield the lines of ``report`` as text: the verdict, then the table."""
    yield from _wrapped(report.verdict)
    yield ""
    yield from _in_all(report)
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


def _in_all(report: Report) -> Iterator[str]:
    seconds, number = max(report.seconds, 1e-9), report.num_batches
    yield _pair("batches", f"{number:,} in {units.seconds(report.seconds)}", f"{units.rate(number / seconds)} a second")
    if report.nbytes:
        yield _pair("bytes", units.nbytes(report.nbytes), f"{units.nbytes(report.nbytes / seconds)} a second")
    if report.nb_workers:
        yield _pair("queue", f"{report.depth:.1f} ready on average", f"at most {report.bound:,} ahead")
    yield _pair("workers", f"{report.nb_workers:,} ({report.executor})", units.count(report.cores, "core"))
    if report.segments_made:
        yield _pair("shared memory", f"{units.count(report.segments_made, 'piece')} made")


def _spread(name: str, spread: Spread, total: float) -> str:
    each = (spread.median, spread.p99, spread.total)
    return _row(name, *map(units.seconds, each), units.share(spread.total / max(total, 1e-9)))


def _lists(report: Report) -> Iterator[str]:
    if report.slowest:
        some = (f"{slow.epoch}/{slow.index} {units.seconds(slow.seconds)}" for slow in report.slowest)
        yield ""
        yield from _wrapped(f"slowest (epoch/index): {', '.join(some)}")
    for start in report.starts[-3:]:
        why = f" ({start.why})" if start.why else ""
        cost = f"started in {units.seconds(start.seconds)}, first batch after {units.seconds(start.wait)}"
        yield from _wrapped(f"epoch {start.epoch}: {cost}{why}")
    if report.failures:
        counts = Counter(each.what for each in report.failures)
        told = ", ".join(f"{number:,} {what}" for what, number in counts.items())
        yield from _wrapped(f"failures: {told}; the last one, epoch {report.failures[-1].epoch}, {report.failures[-1]}")
    if report.sources:
        total = sum(report.sources.values())
        each = (f"{name} {number:,} ({units.share(number / total)})" for name, number in report.sources.items())
        yield from _wrapped(f"sources: {', '.join(each)}")
    if report.functions:
        each = (
            f"{name} {units.seconds(use.seconds)} ({units.share(use.share)})" for name, use in report.functions.items()
        )
        yield from _wrapped(f"functions (share of a job): {', '.join(each)}")
    if report.parts:
        each = (f"{name} {units.share(share)}" for name, share in report.parts.items())
        yield from _wrapped(f"parts of a job: {', '.join(each)}")
    if report.cache is not None:
        cache = report.cache
        found = f"{cache.hits:,} of {cache.hits + cache.misses:,} found"
        miss = f"; to make one took {units.seconds(cache.miss)}" if cache.misses else ""
        yield from _wrapped(
            f"cache: {units.count(cache.num_items, 'item')}, {units.nbytes(cache.nbytes)}, {found}{miss}"
        )
    for choice in report.choices:
        yield from _wrapped(f"chosen: {choice}")


def _row(name: str, *numbers: str) -> str:
    return f"{name:<{_NAME - 1}}" + "".join(f" {number:>10}" for number in numbers).rstrip()


def _pair(name: str, *parts: str) -> str:
    return f"{name:<{_NAME}}" + " ".join(f"{part:<23}" for part in parts).rstrip()


def _wrapped(text: str) -> list[str]:
    """Return ``text`` wrapped into lines, without separating a number from its unit."""
    whole = re.sub(r"(?<=\d) ", "\xa0", text)
    found = textwrap.wrap(whole, _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return [line.replace("\xa0", " ") for line in found]
