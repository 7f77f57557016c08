"""The results of the measurements: tables as Markdown and reStructuredText, and a chart."""

from __future__ import annotations

import math
import os
import platform
import statistics
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.core import Record, Round, Settings, Suite

Table = tuple[list[str], list[list[str]]]  # head, rows


def environment(settings: Settings, num_rounds: int) -> dict[str, Any]:
    """Return the facts about the machine, the versions and the measurement."""
    versions = {}
    for name in ("numpy", "scipy", "torch", "grain", "keras", "tensorflow", "jax"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "workers": settings.num_workers,
        "rounds": num_rounds,
        "seconds": settings.seconds,
        **versions,
    }


def sentence(facts: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {facts[name]}" for name in ("numpy", "torch", "grain", "keras", "tensorflow"))
    return (
        f"{facts['cores']} cores ({facts['machine']}, {facts['system']}), {facts['workers']} workers; medians of "
        f"{facts['rounds']} interleaved rounds, in brackets the least and the most. "
        f"Python {facts['python']}, {packages}."
    )


def figure_of(value: float) -> str:
    """Return ``value`` with about three significant digits: 337,779, 33.8, 0.0233; below 0.0001, 0."""
    if value == int(value) or abs(value) < 1e-4:
        return f"{value:,.0f}"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{value:,.{min(max(digits, 0), 4)}f}"


def cell(values: list[float]) -> str:
    """Return the median, with the least and the most in brackets."""
    if not values:
        return ""
    middle, least, most = (figure_of(f(values)) for f in (statistics.median, min, max))
    return middle if least == most else f"{middle} ({least} to {most})"


def table(suite: Suite, key: str, records: list[Record]) -> Table:
    """Return the table of one job: a row for each way, also for those that could not be measured."""
    mine, job = [record for record in records if record.job == key], suite.jobs[key]
    columns = list(dict.fromkeys(name for record in mine for name in record.numbers))
    rows = []
    for way in dict.fromkeys(record.way for record in mine):
        measured = [record for record in mine if record.way == way]
        cells = [cell([r.numbers[name] for r in measured if name in r.numbers]) for name in columns]
        error = next((record.error for record in measured if record.error), None)
        if error and not any(cells):
            cells = [f"no result: {error}"[:90], *[""] * (len(columns) - 1)]
        rows.append([job.ways[way].label, *cells])
    return [job.label, *([suite.names[name] for name in columns] or ["result"])], rows


def tables(suite: Suite, facts: dict[str, Any], records: list[Record]) -> list[Table]:
    """Return a table for each job, and one of the targets."""
    numbers: dict[int, dict[tuple[str, str, str], float]] = {}
    for record in records:
        named = {(record.job, record.way, name): value for name, value in record.numbers.items()}
        numbers.setdefault(record.round, {}).update(named)
    rounds = [Round(each, facts["workers"]) for each in numbers.values()]
    goals = [
        [target.text, f"{target.sign} {target.bound:g}", cell(values), "yes" if target.is_met(values) else "no"]
        for target in suite.targets
        if (values := target.values(rounds))
    ]
    found = [table(suite, job, records) for job in dict.fromkeys(record.job for record in records)]
    return [one for one in (*found, (["", "must be", "is", "met"], goals)) if one[1]]


def rst_table(one: Table) -> str:
    """Return the table as reStructuredText."""
    head, rows = one
    lines = [[head[0] or ".", *head[1:]], *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    rule = "  ".join("=" * width for width in widths)
    text = ["  ".join(part.ljust(width) for part, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([rule, text[0], rule, *text[1:], rule])


def markdown_table(one: Table) -> str:
    head, rows = one
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows])


def chart(suite: Suite, facts: dict[str, Any], records: list[Record], to: Path) -> None:
    """Draw bars of one number, in a panel for each job that has it."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    drawn: dict[str, dict[str, list[float]]] = {}
    for record in records:
        if suite.chart in record.numbers and record.way != "serial":
            of_job = drawn.setdefault(record.job, {})
            of_job.setdefault(record.way, []).append(record.numbers[suite.chart])
    if not drawn:
        return
    num_rows = (len(drawn) + 1) // 2
    figure, axes = plt.subplots(num_rows, 2, figsize=(13, 4 * num_rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(drawn) :]:
        axis.remove()
    for axis, (key, values) in zip(axes.flat, drawn.items(), strict=False):
        ways = list(values)[::-1]
        middles = [statistics.median(values[way]) for way in ways]
        least = [middle - min(values[way]) for way, middle in zip(ways, middles, strict=True)]
        most = [max(values[way]) - middle for way, middle in zip(ways, middles, strict=True)]
        colours = ["#c44e52" if suite.is_ours(way) else "#8c8c8c" for way in ways]
        labels = [suite.jobs[key].ways[way].label for way in ways]
        bars = axis.barh(labels, middles, xerr=[least, most], ecolor="#444", color=colours)
        axis.bar_label(bars, [figure_of(middle) for middle in middles], padding=3)
        if max(middles, default=0) > 0.5:  # otherwise the line would make the bars too short to compare
            axis.axvline(1.0, color="black", linewidth=0.8)
        axis.margins(x=0.15)
        axis.set_title(suite.jobs[key].label)
        axis.set_xlabel(suite.names[suite.chart])
    figure.suptitle(f"{facts['cores']} cores, {facts['workers']} workers")
    figure.savefig(to, dpi=110)
