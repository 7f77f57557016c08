"""Checks a source: runs its first batches in workers and here, compares them, and makes the findings."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from itertools import islice, zip_longest
from typing import Any, NamedTuple

from workers.engine.comparison import Difference, first_difference
from workers.errors import NotPicklableError, PrefetchError
from workers.frameworks.keras import counted
from workers.loader.iterators import Iterators, source_of
from workers.report.pool import PoolFigures
from workers.report.report import Report
from workers.report.units import count
from workers.sequence.base import plan_of
from workers.sequence.source import check_source

from . import blame, measures
from .data import keeper
from .findings import CheckReport, Finding
from .probe import JobRecord
from .runs import CheckedMap, Raised
from .surroundings import others

_MOST_LISTED = 4
_ORDER = "error", "warning", "fact"


class Other(NamedTuple):
    """A batch that was another one in a second run, and the first value that differs."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    path: str
    one: str
    two: str


class InWorkers(NamedTuple):
    """What workers have computed: batches, what differed the second time, records of jobs, figures and times."""

    batches: list[Any]
    again: Other | None
    records: list[JobRecord]
    report: Report
    figures: PoolFigures
    first_s: float
    later_s: float


class Here(NamedTuple):
    """What this process has computed: batches, what differed the second time, and two records of each job.
    ``written`` names the arrays of the source that jobs have written into."""

    batches: list[Any]
    again: Other | None
    written: list[str]
    records: list[JobRecord]
    records_again: list[JobRecord]


def report_on(source: Any, nb_workers: int, step_s: float | None, num_batches: int) -> CheckReport:
    """Return the report on ``source``; see :func:`workers.check`. ``step_s`` is its ``step_ms``, in seconds."""
    check_source("source", counted(source))
    plan = plan_of(counted(source))
    _check_begins_again(plan)
    findings: list[Finding] = []
    restore = keeper(source)
    there: InWorkers | None = None
    try:
        try:
            there = _in_workers(source, nb_workers, num_batches, restore)
        except NotPicklableError as error:
            findings.append(Finding("cannot be sent", "error", _sentence(str(error))))
        except (PrefetchError, ImportError) as error:
            findings.append(Finding("cannot start", "error", _sentence(f"{type(error).__name__}: {error}")))
        restore()
        here = _here(source, num_batches, restore)
    finally:
        restore()
    findings += _of_errors(here, there)
    findings += _of_data(here)
    if not here.written:
        findings += _of_draws(here, there) or ([] if there is None else _of_places(here, there))
    batches = [each for each in here.batches if type(each) is not Raised]
    findings += measures.of_shapes(batches) if batches else []
    if not here.batches:
        findings.append(Finding("shapes", "warning", "The epoch has no batch, so nothing could be compared."))
    if there is not None:
        findings += measures.of_opened(there.records, nb_workers)
        findings.append(measures.of_first_batch(there.first_s, there.later_s, nb_workers))
        if there.report.job.count:
            findings += measures.of_times(there.report, there.figures)
            findings += [measures.of_workers(there.report, there.figures, step_s)] if step_s else []
    findings.sort(key=lambda each: _ORDER.index(each.level))
    gc.collect()  # of the loops, which refer to each other
    return CheckReport(type(source).__name__, nb_workers, len(here.batches), tuple(findings))


def _check_begins_again(plan: Any) -> None:
    """Raise StateError if the source of ``plan`` can be read only once. Nothing is read from it."""
    if plan.is_read_here:
        iterators, origin = Iterators(), source_of(plan.origin)
        iterators.begin(origin, 0, 0)
        iterators.read(1, 0)  # as if it had been read
        iterators.begin(origin, 0, 0)


# -- runs


def _in_workers(source: Any, nb_workers: int, num_batches: int, restore: Callable[[], None]) -> InWorkers:
    """Compute the first batches twice in workers, and record their jobs in others, which have not run any.
    ``restore()`` sets back what the hooks have changed."""
    start_s = time.monotonic()
    with CheckedMap(source, nb_workers) as front:
        batches, first_s = _timed(front, num_batches, start_s)
        again, later_s = _timed(front, num_batches, time.monotonic())
        report, figures = front.report(), front._live.figures.pool
        restore()
        with CheckedMap(source, nb_workers, is_probe=True) as probe:  # before the server of the others ends
            records = probe.records(num_batches)
    return InWorkers(batches, _first_other(batches, again), records, report, figures, first_s, later_s)


def _timed(front: CheckedMap, num_batches: int, start_s: float) -> tuple[list[Any], float]:
    """Return the first batches, and how many seconds after ``start_s`` the first one came."""
    reading = front.first(num_batches)
    batches = list(islice(reading, 1))
    first_s = time.monotonic() - start_s
    return [*batches, *reading], first_s


def _here(source: Any, num_batches: int, restore: Callable[[], None]) -> Here:
    """Compute the first batches twice in this process, and record their jobs twice."""
    with CheckedMap(source, 0) as front:
        before = front.contents()  # after the hooks
        batches = list(front.first(num_batches))
        again = _first_other(batches, list(front.first(num_batches)))
        written = [path for path, content in front.contents().items() if before.get(path, content) != content]
    restore()
    with CheckedMap(source, 0, is_probe=True) as probe:
        return Here(batches, again, written, probe.records(num_batches), probe.records(num_batches))


def _first_other(batches: list[Any], again: list[Any]) -> Other | None:
    for index, (one, two) in enumerate(zip_longest(batches, again, fillvalue=Raised("no batch"))):
        if type(one) is Raised or type(two) is Raised:
            pairs = [(f"{each.text}" if type(each) is Raised else "computed") for each in (one, two)]
            found = None if one == two or pairs[0] == pairs[1] else Difference("the batch", *pairs)
        else:
            found = first_difference(one, two)
        if found is not None:
            return Other(index, *found)
    return None


# -- findings


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith((".", "!", "?")) else ".")


def _of_errors(here: Here, there: InWorkers | None) -> Iterator[Finding]:
    """Yield the finding on the first batch that raises: in the program or, if none does there, in a worker."""
    in_program, in_worker = _errors(here.batches), _errors([] if there is None else there.batches)
    for at, text in list((in_program or in_worker).items())[:1]:
        where = [*(["the program"] if at in in_program else []), *(["a worker"] if at in in_worker else [])]
        yield Finding("fails", "error", f"Batch {at} raises an error in {' and in '.join(where)}: {_sentence(text)}")


def _errors(batches: list[Any]) -> dict[int, str]:
    return {at: each.text for at, each in enumerate(batches) if type(each) is Raised}


def _of_data(here: Here) -> Iterator[Finding]:
    """Yield the findings on batches that are views of the data, and on jobs that write into it."""
    if here.written:
        yield Finding(
            "writes into data",
            "error",
            f"Jobs change {_listed(here.written)} in place, so a batch depends on the batches before it.",
            "Copy what you write into: x = x.copy(), or x = x * 2 in place of x *= 2.",
        )
    views = list(dict.fromkeys(path for record in here.records for path in record.views))
    if views:
        yield Finding(
            "view",
            "fact",
            f"Batches are views of {_listed(views)}. A loop gets copies, and may write into them; a function that "
            "writes into the result of __getitem__ before that would change the data.",
        )


def _of_draws(here: Here, there: InWorkers | None) -> list[Finding]:
    """Return the finding on batches that are others each time, though the seed is the same."""
    if here.again is not None:
        other, where = here.again, "in the program"
        found = blame.first_other(here.records, here.records_again)
        is_reading = found is None and blame.is_read_otherwise(here.records, here.records_again)
    elif there is not None and there.again is not None and _first_other(here.batches, there.batches) is None:
        other, where = there.again, "in workers"
        found, is_reading = blame.first_other(here.records, there.records), False
    else:
        return []
    text = f"Batch {other.index} differs each time it is computed {where}, with the same seed: {other.path} is "
    text += f"{other.one} at first, then {other.two}."
    if is_reading:
        text += " The source itself yields other items each time that it is read."
        return [Finding("not seeded", "error", text, "Give it a seed, e.g. shuffle(..., seed=1) of a data set.")]
    text += "" if found is None else f" The function is {blame.who(found)}."
    return [Finding("not seeded", "error", text, blame.instead_of_draws(found))]


def _of_places(here: Here, there: InWorkers) -> list[Finding]:
    """Return the finding on batches that are others in a worker than in the program."""
    has_failed = _errors(here.batches) or _errors(there.batches)
    other = None if has_failed else _first_other(here.batches, there.batches)
    if other is None:
        return []
    found = blame.first_other(here.records, there.records)
    text = f"Batch {other.index} differs: {other.path} is {other.one} in the program, but "
    text += f"{other.two} in a worker."
    if found is not None:
        text += f" The function is {blame.who(found)}."
    elif blame.is_read_otherwise(here.records, there.records):
        text += " The source yields other items each time that it is read."
    pairs = others(here.records[0].settings, there.records[0].settings) if here.records and there.records else []
    settings, instead = blame.of_settings(found, pairs)
    return [Finding("differs", "error", f"{text} {_of_settings(settings)}".rstrip(), instead)]


def _of_settings(settings: list[tuple[str, str, str]] | None) -> str:
    if settings is None:
        return ""
    if not settings:
        return "No setting was found that differs."
    told = [f"{name} ({mine} in the program, {theirs} in a worker)" for name, mine, theirs in settings]
    return f"{'These settings differ' if len(told) > 1 else 'This setting differs'}: {_listed(told)}."


def _listed(names: list[str]) -> str:
    more = f" and {count(len(names) - _MOST_LISTED, 'other')}" if len(names) > _MOST_LISTED else ""
    return f"{', '.join(names[:_MOST_LISTED])}{more}"
