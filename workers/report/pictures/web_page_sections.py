"""Writes the sections of a report's web page as HTML: key figures, tables, and the frame of the timeline."""

from __future__ import annotations

import html
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from workers.report import units
from workers.report.timeline import LOOP

from .colours import OTHER, WAITING, WORKING, colours_of
from .plot_labels import shortened

if TYPE_CHECKING:
    from workers.report.report import Report, Slow, Spread

    from .web_page_timeline import PageTimeline

_LETTERS = 400  # of an error
_NAMES_OF_LOOP = {"wait": WAITING, "step": WORKING}
_HELP = (
    "Wheel or pinch zooms, drag moves, double click shows all. Keys: + and &minus; zoom, ← → move, ↑ ↓ choose a row, "
    "Shift with ← → chooses a job, 0 shows all."
)


class Markup(str):
    """A text that is HTML already; any other text is escaped."""


def split_verdict(verdict: str) -> tuple[str, str]:
    """Return (the first sentence, the others). A sentence ends in a full stop and a space."""
    said, _, rest = re.sub(r"\.\s+", ".\n", verdict.strip(), count=1).partition("\n")
    return said, rest


def with_units(text: str) -> str:
    """Return ``text`` with no-break spaces between numbers and their units."""
    return re.sub(r"(?<=\d) (?=%|[a-zA-Z])", "\xa0", text)


def figures(report: Report) -> Markup:
    """Return the key figures, and the bar that shows how the loop's time is divided."""
    seconds = max(report.seconds, 1e-9)
    rate = report.num_batches / seconds
    noun = "thread" if report.executor == "thread" else "worker"
    facts = [
        ("rate", units.rate(rate), "batches a second"),
        ("batches", f"{report.num_batches:,}", f"in {units.seconds(report.seconds)}"),
        ("waited", units.seconds(report.wait.total), "for batches"),
        (f"{noun}s", f"{report.nb_workers:,}", f"{report.executor}, {units.count(report.cores, 'core')}"),
    ]
    if report.nb_workers:
        facts.append(("queue", f"{report.depth:.1f}", f"ready on average, of at most {report.bound:,}"))
    if report.nbytes:
        facts.append(("data", units.nbytes(report.nbytes), f"{units.nbytes(report.nbytes / seconds)} a second"))
    cells = (f"<div><dt>{name}</dt><dd><b>{_text(value)}</b> {_text(unit)}</dd></div>" for name, value, unit in facts)
    return Markup(f'<dl class="figures">{"".join(cells)}</dl>')


def times(report: Report) -> Markup:
    """Return the table of waits, steps, jobs and stages, with bars of their shares."""
    of_loop, of_stages = report.wait.total + report.step.total, sum(each.total for each in report.stages.values())
    colours = colours_of([WAITING, WORKING, *report.stages])
    rows = [
        _spread(Markup(swatch(_NAMES_OF_LOOP[name], colours[_NAMES_OF_LOOP[name]]) + name), spread, of_loop)
        for name, spread in (("wait", report.wait), ("step", report.step))
    ]
    rows.append(_spread("job", report.job, report.job.total))
    rows += [
        _spread(Markup(f'<span class="stage">{swatch(name, colours[name])}{_text(name)}</span>'), spread, of_stages)
        for name, spread in report.stages.items()
    ]
    body = _bar([(WAITING, report.wait.total), (WORKING, report.step.total)], "the loop", colours)
    if len(report.stages) > 1:
        body += _bar([(name, spread.total) for name, spread in report.stages.items()], "a job", colours)
    table = _table("times", ("", "median", "p99", "in all", "share"), rows)
    note = "wait: for a batch. step: the loop's own work between two. job: computing one. p99: the 99th percentile."
    return _section("times", "Where the time goes", f'{body}{table}<p class="note">{note}</p>')


def timeline(shown: PageTimeline) -> Markup:
    """Return the frame in which the page's script draws the timeline."""
    if not shown.length_ns:
        return _section("timeline-section", "Timeline", Markup("<p>Nothing has run yet.</p>"))
    colours = colours_of([WAITING, WORKING]) | shown.colours
    legend = "".join(f"<li>{swatch(kind, colour)}{_text(kind)}</li>" for kind, colour in colours.items())
    buttons = "".join(
        f'<button type="button" data-key="{key}" aria-label="{label}" title="{label}">{sign}</button>'
        for key, label, sign in (
            ("ArrowLeft", "Move left", "←"),
            ("ArrowRight", "Move right", "→"),
            ("-", "Zoom out", "&minus;"),
            ("+", "Zoom in", "+"),
            ("0", "Show all", "All"),
        )
    )
    label = "Timeline of the loop and its workers"
    body = (
        f'<div class="bar-of-buttons"><output id="range"></output><span class="buttons">{buttons}</span></div>'
        '<div id="frame"><canvas id="timeline" tabindex="0" role="application" '
        f'aria-label="{label}" aria-describedby="keys"></canvas><div id="tip" role="status" hidden></div></div>'
        f'<ul class="legend" id="legend">{legend}</ul><p class="note" id="keys">{_HELP}</p>'
        "<noscript><p>The timeline needs JavaScript.</p></noscript>"
    )
    return _section("timeline-section", "Timeline", Markup(body))


def details(report: Report, shown: PageTimeline) -> Markup:
    """Return the other tables; those without a row are left out."""
    found = [each for each in _tables(report, shown) if each]
    return Markup(f'<div class="details">{"".join(found)}</div>')


def _tables(report: Report, shown: PageTimeline) -> Iterator[Markup]:
    choices = [(choice, _place_of_choice(choice, shown)) for choice in report.choices]
    yield _listed("choices", "What nb_workers=&quot;auto&quot; chose, and why", ("choice", "at"), choices, "words")
    workers = [
        (
            f"{worker.number}" + (f" ({worker.pid})" if worker.pid else ""),
            units.share(worker.busy),
            f"{worker.num_jobs:,}",
            f"{worker.restarts:,}",
            "" if worker.cpu is None else units.share(worker.cpu),
            "" if worker.nbytes is None else units.nbytes(worker.nbytes),
        )
        for worker in report.workers
    ]
    yield _listed("workers", "Workers", ("worker (pid)", "busy", "jobs", "restarts", "CPU", "memory"), workers)
    slowest = [
        (f"epoch {slow.epoch}, batch {slow.index}", units.seconds(slow.seconds), _place_of_job(slow, shown))
        for slow in report.slowest
    ]
    yield _listed("slowest", "Slowest batches", ("batch", "job", ""), slowest)
    yield from _of_jobs(report)
    starts = [
        (f"{start.epoch}", units.seconds(start.seconds), units.seconds(start.wait), start.why)
        for start in report.starts
    ]
    yield _listed("starts", "Starts of epochs", ("epoch", "started in", "first batch after", "why"), starts, "wordy")
    yield _failures(report)
    events = [
        (
            _at(shown, each.at_ns),
            "" if each.worker == LOOP else f"worker {each.worker}",
            each.kind,
            shortened(each.text, _LETTERS),
        )
        for each in shown.incidents
    ]
    yield _listed("events", "Events", ("at", "worker", "event", ""), events, "words")


def _of_jobs(report: Report) -> Iterator[Markup]:
    functions = [
        (name, units.seconds(use.seconds), units.share(use.share), units.nbytes(use.nbytes))
        for name, use in report.functions.items()
    ]
    yield _listed("functions", "Functions", ("function", "a call", "share of a job", "size of a result"), functions)
    parts = [(name, units.share(share)) for name, share in report.parts.items()]
    yield _listed("parts", "Parts of a job", ("part", "share of a job"), parts)
    total = max(sum(report.sources.values()), 1)
    sources = [(name, f"{number:,}", units.share(number / total)) for name, number in report.sources.items()]
    yield _listed("sources", "Sources", ("source", "samples", "share"), sources)
    if (cache := report.cache) is not None:
        counts = (f"{cache.num_items:,}", units.nbytes(cache.nbytes), f"{cache.hits:,}", f"{cache.misses:,}")
        miss = units.seconds(cache.miss) if cache.misses else ""
        yield _listed("cache", "Cache", ("items", "size", "found", "not found", "time to make one"), [(*counts, miss)])


def _failures(report: Report) -> Markup:
    counts = Counter(each.what for each in report.failures)
    title = "Failures: " + ", ".join(f"{number:,} {what}" for what, number in counts.items())
    rows = [
        (
            f"{each.epoch}",
            f"{each.batch}",
            "" if each.sample is None else f"{each.sample}",
            each.what,
            f"{each.times:,}",
            shortened(each.error, _LETTERS),
        )
        for each in report.failures
    ]
    return _listed("failures", title, ("epoch", "batch", "sample", "", "times", "error"), rows, "wordy")


def _place_of_choice(text: str, shown: PageTimeline) -> str:
    incident = shown.place_of_choice(text)
    return "" if incident is None else _at(shown, incident.at_ns)


def _place_of_job(slow: Slow, shown: PageTimeline) -> str:
    place = shown.place_of_job(slow)
    return "" if place is None else _show(*place)


def swatch(kind: str, colour: str) -> Markup:
    """Return a small square in the colour of ``kind``. The style may change the colours of waits and steps."""
    name = {WAITING: "waiting", WORKING: "working", OTHER: "other"}.get(kind, "")
    return Markup(f'<svg class="swatch" viewBox="0 0 1 1" aria-hidden="true">{_rect(0, 1, colour, name)}</svg>')


def _rect(start: float, width: float, colour: str, name: str = "") -> str:
    of_class = f' class="{name}"' if name else ""
    return f'<rect x="{start:.5g}" width="{width:.5g}" height="1" fill="{colour}"{of_class}/>'


def _bar(parts: list[tuple[str, float]], of: str, colours: dict[str, str]) -> str:
    """Return a bar with a segment for each of ``parts``: (kind, its amount)."""
    total = sum(amount for _, amount in parts)
    if not total:
        return ""
    ends = list(itertools.accumulate(amount / total for _, amount in parts))
    names = {WAITING: "waiting", WORKING: "working"}
    drawn = "".join(
        _rect(end - amount / total, amount / total, colours[kind], names.get(kind, ""))
        for (kind, amount), end in zip(parts, ends, strict=True)
    )
    told = ", ".join(f"{kind} {units.share(amount / total)}" for kind, amount in parts)
    return (
        f'<figure class="bar"><figcaption>{of}</figcaption><svg viewBox="0 0 1 1" preserveAspectRatio="none" '
        f'role="img" aria-label="{_text(f"{of}: {told}")}">{drawn}</svg></figure>'
    )


def _spread(name: str, spread: Spread, total: float) -> tuple[str, ...]:
    each = (spread.median, spread.p99, spread.total)
    return (name, *map(units.seconds, each), units.share(spread.total / max(total, 1e-9)))


def _at(shown: PageTimeline, at_ns: int) -> Markup:
    """Return a button that shows this moment in the timeline."""
    return _show(at_ns - shown.first_ns, at_ns - shown.first_ns, f"{shown.second(at_ns):.3f} s")


def _show(start_ns: int, end_ns: int, text: str = "show") -> Markup:
    return Markup(f'<button type="button" class="show" data-start="{start_ns}" data-end="{end_ns}">{text}</button>')


def _listed(name: str, title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], looks: str = "") -> Markup:
    return _section(name, title, _table(name, heads, rows), looks) if rows else Markup()


def _section(name: str, title: str, body: str, looks: str = "") -> Markup:
    of_class = f' class="{looks}"' if looks else ""
    return Markup(
        f'<section{of_class} aria-labelledby="{name}-title"><h2 id="{name}-title">{title}</h2>{body}</section>'
    )


def _table(name: str, heads: Iterable[str], rows: Iterable[Sequence[str]]) -> Markup:
    """Return a table that scrolls in its own frame. The first cell of a row is its head."""
    head = "".join(f'<th scope="col">{_text(each)}</th>' if each else "<td></td>" for each in heads)
    body = "".join(
        f'<tr><th scope="row">{_text(first)}</th>{"".join(f"<td>{_text(each)}</td>" for each in others)}</tr>'
        for first, *others in rows
    )
    return Markup(
        f'<div class="scroll" tabindex="0" role="region" aria-labelledby="{name}-title">'
        f'<table id="{name}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _text(text: str) -> str:
    return text if isinstance(text, Markup) else html.escape(text)
