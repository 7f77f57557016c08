"""Draws a report on a page: verdict, lanes (a row for each worker and one for the loop), and finished batches.

Lengths are inches from the top. matplotlib's own layouts would have to guess the height of a title of three lines or
a legend of two rows. Here heights are added up, so nothing overlaps, with 0 workers or with 64.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, cast

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from workers.report.timeline import LOOP, Incident, Timeline

from .plot_labels import SIZE, TextRoom, shortened
from .plot_lanes import THROUGH_ALL, bars_of, draw_bars, draw_incidents
from .plot_window import Window, lanes_of, window_of

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from workers.report.report import Report

_WIDTH, _LEFT, _RIGHT, _MARGIN = 12.0, 1.0, 0.3, 0.25
_INSIDE = _WIDTH - _LEFT - _RIGHT
_TITLE_LINE, _LINE, _LEGEND_ROW = 0.27, 0.24, 0.23
_LANES, _LEAST_LANE, _MOST_LANE = 4.5, 0.21, 0.55  # all lanes; the least and the most of one
_DEPTH, _AXIS, _GAP = 1.2, 0.6, 0.2
_MOST_EPOCHS = 60  # lines
_TITLE_LETTERS, _LEGEND_COLUMNS, _LINE_ROWS = 104, 7, 2
_GREY = "#555555"


def page(report: Report) -> Figure:
    """Return ``report`` drawn as a matplotlib figure."""
    window = window_of(report.timeline)
    return _nothing(report) if window is None else _PlotPage(report, window).figure


class _PlotPage:
    """The picture of a report, laid out from top to bottom: title, legend, a row for each worker, finished batches."""

    def __init__(self, report: Report, window: Window) -> None:
        self.window = window
        workers = lanes_of(report.timeline, window, [worker.number for worker in report.workers])
        self.lanes = {worker: lane for lane, worker in enumerate([*workers, LOOP])}
        incidents = [incident for incident in report.timeline.incidents if window.holds(incident.at_ns)]
        self.lines = _readable([each for each in incidents if _is_of_all(each)])
        self.marks = [each for each in incidents if not _is_of_all(each)]
        bars = bars_of(report.timeline, window, self.lanes)

        title = _title(report)
        height_of_lanes = len(self.lanes) * min(max(_LANES / len(self.lanes), _LEAST_LANE), _MOST_LANE)
        num_shown = len({bar.kind for bar in bars}) + len({mark.kind for mark in self.marks})
        legend = (num_shown + _LEGEND_COLUMNS - 1) // _LEGEND_COLUMNS * _LEGEND_ROW
        words = _LINE_ROWS * _LINE if self.lines else 0.0
        depth = _GAP + _DEPTH if _has_queue(report.timeline) else 0.0
        at_lanes = _MARGIN + len(title) * _TITLE_LINE + _LINE + legend + words + _GAP
        self.height = at_lanes + height_of_lanes + depth + _AXIS

        self.figure = _figure(self.height)
        self._write_head(title, _subtitle(report, window))
        lanes = self._axes(at_lanes, height_of_lanes)
        self._draw_lanes(lanes)
        shown = draw_bars(lanes, bars) + draw_incidents(lanes, self.marks, window, self.lanes, _INSIDE)
        self._draw_legend(shown, at_lanes - _GAP / 2 - words - legend)
        _draw_lines(lanes, self.lines, window)
        if depth:
            lanes.tick_params(axis="x", labelbottom=False, length=0)
            lanes.set_xlabel("")
            _draw_depth(self._axes(at_lanes + height_of_lanes + _GAP, _DEPTH), report.timeline, window)

    def _axes(self, top: float, height: float) -> Axes:
        place = _LEFT / _WIDTH, 1 - (top + height) / self.height, _INSIDE / _WIDTH, height / self.height
        axes = self.figure.add_axes(place)
        axes.set_xlim(0, self.window.seconds)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9)
        axes.set_xlabel("seconds", fontsize=9)
        return axes

    def _write_head(self, title: list[str], subtitle: str) -> None:
        top = _MARGIN
        for line in title:
            self._write(line, top, fontsize=12, fontweight="bold")
            top += _TITLE_LINE
        self._write(subtitle, top, fontsize=10, color=_GREY)

    def _write(self, text: str, top: float, **looks: object) -> None:
        place = _LEFT / _WIDTH, 1 - top / self.height
        self.figure.text(*place, text, va="top", parse_math=False, **looks)  # type: ignore[arg-type]

    def _draw_legend(self, shown: list[Artist], top: float) -> None:
        legend = self.figure.legend(
            handles=shown,
            loc="upper left",
            bbox_to_anchor=(_LEFT / _WIDTH, 1 - top / self.height),
            borderaxespad=0,
            borderpad=0,
            ncols=_LEGEND_COLUMNS,
            frameon=False,
            fontsize=9,
            handlelength=1.2,
            columnspacing=1.6,
            labelspacing=0.4,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)

    def _draw_lanes(self, axes: Axes) -> None:
        names = ["the loop" if worker == LOOP else f"worker {worker}" for worker in self.lanes]
        axes.set_yticks(range(len(names)), names, fontsize=9 if len(names) <= 16 else 8)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0, pad=8)
        axes.spines["left"].set_visible(False)


def _figure(height: float) -> Figure:
    figure = Figure(figsize=(_WIDTH, height), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _nothing(report: Report) -> Figure:
    figure = _figure(2.0)
    figure.text(0.5, 0.5, "Nothing has run yet.", ha="center", va="center", fontsize=13, color=_GREY)
    return figure


def _title(report: Report) -> list[str]:
    return textwrap.wrap(report.verdict, _TITLE_LETTERS)


def _subtitle(report: Report, window: Window) -> str:
    rate = report.num_batches / report.seconds if report.seconds > 0 else None
    noun = "thread" if report.executor == "thread" else "worker"
    facts = [
        *([] if rate is None else [f"{rate:,.0f} batches/s" if rate >= 100 else f"{rate:,.3g} batches/s"]),
        "no workers" if report.nb_workers == 0 else _count(report.nb_workers, noun),
        _count(report.cores, "core"),
        *(["only some of the tiny jobs are drawn"] if _are_few_noted(report.timeline, window) else []),
    ]
    return ", ".join(facts)


def _count(number: int, one: str) -> str:
    return f"{number:,} {one}" if number == 1 else f"{number:,} {one}s"


def _are_few_noted(timeline: Timeline, window: Window) -> bool:
    """Return True if the loop got many more batches than jobs were recorded, so lanes look emptier than they were."""
    num_jobs = sum(window.holds(span.start_ns) for span in timeline.spans)
    return 0 < 3 * num_jobs < sum(window.holds(step.got_ns) for step in timeline.steps)


def _has_queue(timeline: Timeline) -> bool:
    return timeline.bound > 0 or any(step.num_ready for step in timeline.steps)


def _is_of_all(incident: Incident) -> bool:
    return incident.worker == LOOP or incident.kind in THROUGH_ALL


def _readable(lines: list[Incident]) -> list[Incident]:
    """Return ``lines``, incidents to draw across all lanes (rows), without epochs' starts if these would hide them."""
    others = [line for line in lines if line.kind != "epoch"]
    return lines if len(lines) - len(others) <= _MOST_EPOCHS else others


def _draw_lines(axes: Axes, incidents: list[Incident], window: Window) -> None:
    """Draw incidents that concern all rows (lanes) as lines through them.

    They are labelled above where there is room; starts of epochs come last.
    """
    room = TextRoom(_INSIDE)
    for incident in sorted(incidents, key=lambda incident: incident.kind == "epoch"):
        is_epoch = incident.kind == "epoch"
        second, text = window.second(incident.at_ns), _words_of(incident)
        colour, width, style = (_GREY, 0.8, ":") if is_epoch else ("black", 1.3, "-")
        axes.axvline(second, color=colour, lw=width, ls=style)
        place = room.take(text, second / window.seconds, range(_LINE_ROWS))
        if place is not None:
            axes.annotate(
                text,
                (second, 1),
                (0, 3 + cast(int, place.row) * _LINE * 60),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha=place.align,
                va="bottom",
                fontsize=SIZE,
                color=colour,
                parse_math=False,
            )


def _words_of(incident: Incident) -> str:
    if incident.kind in incident.text or incident.kind == "chosen":
        return shortened(incident.text or incident.kind, 90)
    return shortened(f"{incident.kind} {incident.text}", 90)


def _draw_depth(axes: Axes, timeline: Timeline, window: Window) -> None:
    """Draw how many finished batches there were each time that the loop asked for one, and the most allowed."""
    steps = [step for step in sorted(timeline.steps) if window.holds(step.asked_ns)]
    at, ready = [window.second(step.asked_ns) for step in steps], [step.num_ready for step in steps]
    axes.fill_between(at, ready, step="post", color="#56b4e9", alpha=0.35, lw=0)
    axes.step(at, ready, where="post", color="#0072b2", lw=1)
    if timeline.bound:
        axes.axhline(timeline.bound, color="black", lw=1, ls="--")
        axes.annotate(
            f"bound: {timeline.bound:,}",
            (1, timeline.bound),
            (0, 2),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=SIZE,
        )
    axes.set_ylim(0, max([1, timeline.bound, *ready]) * 1.25)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.set_ylabel("finished\nbatches", fontsize=9)
