"""What the measurements say: tables for a terminal (Markdown) and for README.rst, a bar chart, and all numbers as JSON.

A cell is the median over the rounds with the least and the most in brackets. ``x serial`` is the ratio to the plain
loop that ran beside the loader in the same child.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
from collections.abc import Iterable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.measure import ALL_LOADERS, MEASUREMENTS, Settings
from benchmarks.rounds import Record
from benchmarks.targets import reached

# {number: how the head of its column names it}
NAMES = {
    "batches_per_s": "batches/s",
    "times_serial": "x serial",
    "first_s": "first batch, s",
    "later_first_ms": "first of a later epoch, ms",
    "other_median_ms": "others: median, ms",
    "other_longest_ms": "others: longest, ms",
    "thread_us": "consumer's thread, us a batch",
    "process_us": "consumer's process, us a batch",
    "processes": "processes",
    "workers_uss_mb": "private to them, MB",
    "all_mb": "all, with the consumer, MB",
    "arrays_in_shared_memory": "in shared memory, times",
}

Table = tuple[list[str], list[list[str]]]  # head, rows


def environment(settings: Settings, num_rounds: int) -> dict[str, Any]:
    """The machine, the versions, and how it was measured."""
    versions = {}
    for name in ("numpy", "scipy", "torch", "grain", "keras", "tensorflow"):
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
    packages = ", ".join(f"{name} {facts[name]}" for name in ("numpy", "torch", "grain", "keras") if name in facts)
    return (
        f"{facts['cores']} cores ({facts['machine']}, {facts['system']}), {facts['workers']} workers; medians of "
        f"{facts['rounds']} interleaved rounds, in brackets the least and the most. "
        f"Python {facts['python']}, {packages}."
    )


def table(job: str, records: Iterable[Record]) -> Table:
    """(head, rows) of one job: a row for each loader, also for those that could not be measured."""
    mine = [record for record in records if record.job == job]
    columns = list(dict.fromkeys(name for record in mine for name in record.numbers))
    head = [MEASUREMENTS[job].label, *([NAMES[name] for name in columns] or ["result"])]
    rows = []
    for loader in dict.fromkeys(record.loader for record in mine):
        measured = [record for record in mine if record.loader == loader]
        cells = [cell([r.numbers[name] for r in measured if name in r.numbers]) for name in columns]
        error = next((record.error for record in measured if record.error), None)
        if error and not any(cells):
            cells = [f"no result: {error}"[:90], *[""] * (len(columns) - 1)]
        rows.append([ALL_LOADERS[loader].label, *cells])
    return head, rows


def figure_of(value: float) -> str:
    """Three digits that say something: 337,779 but 33.8 and 0.0233; what is below 0.0001 is 0."""
    if value == int(value) or abs(value) < 1e-4:
        return f"{value:,.0f}"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{value:,.{min(max(digits, 0), 4)}f}"


def cell(values: list[float]) -> str:
    if not values:
        return ""
    middle, least, most = (figure_of(f(values)) for f in (statistics.median, min, max))
    return middle if least == most else f"{middle} ({least} to {most})"


def goals(facts: dict[str, Any], records: Iterable[Record]) -> Table:
    """What must be reached, and what was."""
    rows = [
        [target.text, f"{target.sign} {target.bound:g}", cell(values), "yes" if target.is_met(values) else "no"]
        for target, values in reached(records, facts["workers"])
    ]
    return ["workers.prefetch, processes", "must be", "is", "met"], rows


def tables(facts: dict[str, Any], records: list[Record]) -> list[Table]:
    all_tables = [table(job, records) for job in dict.fromkeys(record.job for record in records)]
    return [one for one in (*all_tables, goals(facts, records)) if one[1]]


def markdown(facts: dict[str, Any], records: list[Record]) -> str:
    parts = [sentence(facts)]
    for head, rows in tables(facts, records):
        lines = [head, ["---"] * len(head), *rows]
        parts.append("\n".join("| " + " | ".join(line) + " |" for line in lines))
    return "\n\n".join(parts) + "\n"


def rst(facts: dict[str, Any], records: list[Record]) -> str:
    parts = [sentence(facts)]
    for head, rows in tables(facts, records):
        widths = [max(len(line[column]) for line in (head, *rows)) for column in range(len(head))]
        rule = "  ".join("=" * width for width in widths)
        lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in rows]
        title = "  ".join(text.ljust(width) for text, width in zip(head, widths, strict=True))
        parts.append("\n".join(line.rstrip() for line in (rule, title, rule, *lines, rule)))
    return "\n\n".join(parts) + "\n"


def chart(facts: dict[str, Any], records: list[Record], to: Path) -> None:
    """Bars of the ratios to the plain loop, a panel for each job that has them."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    jobs = [job for job in MEASUREMENTS if any(r.job == job and "times_serial" in r.numbers for r in records)]
    if not jobs:
        return
    num_rows = (len(jobs) + 1) // 2
    figure, axes = plt.subplots(num_rows, 2, figsize=(13, 4 * num_rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(jobs) :]:
        axis.remove()
    for axis, job in zip(axes.flat, jobs, strict=False):
        values: dict[str, list[float]] = {}
        for record in records:
            if record.job == job and "times_serial" in record.numbers and record.loader != "serial":
                values.setdefault(record.loader, []).append(record.numbers["times_serial"])
        names = list(values)[::-1]
        middles = [statistics.median(values[name]) for name in names]
        ours = ["#c44e52" if name in ("process", "thread", "zero") else "#8c8c8c" for name in names]
        spread = [
            [middle - min(values[name]) for name, middle in zip(names, middles, strict=True)],
            [max(values[name]) - middle for name, middle in zip(names, middles, strict=True)],
        ]
        bars = axis.barh([ALL_LOADERS[name].label for name in names], middles, xerr=spread, ecolor="#444", color=ours)
        axis.bar_label(bars, [figure_of(middle) for middle in middles], padding=3)
        if max(middles, default=0) > 0.5:  # else the bars would be too short to compare
            axis.axvline(1.0, color="black", linewidth=0.8)
        axis.margins(x=0.15)
        axis.set_title(MEASUREMENTS[job].label)
        axis.set_xlabel("times the plain loop")
    figure.suptitle(f"{facts['cores']} cores, {facts['workers']} workers")
    figure.savefig(to, dpi=110)


def write(
    facts: dict[str, Any],
    records: list[Record],
    to_markdown: Path | None,
    to_rst: Path | None,
    to_png: Path | None,
    to_json: Path | None,
) -> None:
    """Print the tables, and write what was asked for."""
    text = markdown(facts, records)
    print(text)
    if to_markdown:
        to_markdown.write_text(text)
    if to_rst:
        to_rst.write_text(rst(facts, records))
    if to_png:
        chart(facts, records, to_png)
    if to_json:
        to_json.write_text(json.dumps({"environment": facts, "records": [asdict(r) for r in records]}, indent=1))
