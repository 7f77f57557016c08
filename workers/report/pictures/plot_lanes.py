"""Draws the lanes (rows) of a report: jobs and steps of the loop as bars, incidents as marks.

The number of artists does not depend on the number of jobs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path

from workers.report.timeline import LOOP, Incident, LoopStep, Span, Timeline

from .colours import OTHER, WAITING, WORKING, colours_of
from .plot_labels import SIZE, TextRoom, shortened
from .plot_window import Window

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

_THIN = 0.003  # least width of a job, as a share of the window, so that it is visible
_GAP = 0.0008  # between jobs, as a share of the window

# {kind: (marker, face, size)}; edges are black, of "died" white. Other kinds have _OTHER_MARK and a label.
_MARKS = {
    "started": ("o", "white", 4.5),
    "ready": ("o", "black", 4.5),
    "ended": ("s", "white", 4.5),
    "stalled": ("^", "#f0e442", 9.0),
    "died": ("X", "black", 10.0),
}
_OTHER_MARK = ("D", "white", 6.0)
_IN_WORDS = ("died", "stalled")
THROUGH_ALL = ("chosen", "epoch")  # lines, not marks


class LaneBar(NamedTuple):
    """A rectangle in a lane (row): its kind, which has a colour, and the seconds from which to which it lasts."""

    kind: str
    start: float
    end: float
    lane: int
    height: float = 0.8


def bars_of(timeline: Timeline, window: Window, lanes: dict[int, int]) -> list[LaneBar]:
    """Return the bars to draw: rectangles for the stages of jobs, and for the loop's waits and steps.

    Args:
        timeline: the timeline of a report.
        window: the part of it that is drawn.
        lanes: {worker: its lane (row), counted from the top}, including LOOP.
    """
    bars = list(_bars_of_loop(sorted(timeline.steps), window, lanes[LOOP]))
    of_lanes: dict[int, list[Span]] = {}
    for span in sorted(timeline.spans, key=lambda span: span.start_ns):
        if window.overlaps(span.start_ns, span.start_ns + span.job_ns):
            of_lanes.setdefault(span.worker, []).append(span)
    for worker, spans in of_lanes.items():
        nexts = [*(span.start_ns for span in spans[1:]), window.end_ns]
        for span, next_ns in zip(spans, nexts, strict=True):
            for kind, start, end in _parts(span, window, next_ns):
                # The loop waits during its own jobs: these are thinner, so that its bar stays visible.
                bars.append(LaneBar(kind, start, end, lanes[worker], 0.4 if worker == LOOP else 0.8))
    return bars


def _bars_of_loop(steps: list[LoopStep], window: Window, lane: int) -> Iterator[LaneBar]:
    for at, step in enumerate(steps):
        if window.overlaps(step.asked_ns, step.got_ns):
            yield LaneBar(WAITING, *window.clip(step.asked_ns, step.got_ns), lane)
        if at + 1 < len(steps) and window.overlaps(step.got_ns, steps[at + 1].asked_ns):
            yield LaneBar(WORKING, *window.clip(step.got_ns, steps[at + 1].asked_ns), lane)


def _parts(span: Span, window: Window, next_ns: int) -> Iterator[tuple[str, float, float]]:
    """Yield (kind, start, end) of each stage of a job, in seconds from the start of the window.

    The stages of a job too short to be visible are stretched, up to the next job's start ``next_ns``.
    """
    thin = min(_THIN * window.seconds * 1e9, max(next_ns - span.start_ns, 0))
    stretch = max(thin / max(span.job_ns, 1), 1.0)
    rest = span.job_ns - sum(ns for _, ns in span.stages)
    at = float(span.start_ns)
    end = at + span.job_ns * stretch
    if span.job_ns > 10 * _GAP * window.seconds * 1e9:
        end -= _GAP * window.seconds * 1e9
    for kind, ns in (*span.stages, (OTHER, rest)):
        until = min(at + ns * stretch, end)
        if until > at and until >= window.start_ns:
            yield kind, *window.clip(at, until)
        at = max(until, at)


def draw_bars(axes: Axes, bars: list[LaneBar]) -> list[Artist]:
    """Draw ``bars``, the rectangles of jobs and steps, with one artist for each colour. Return the legend's handles."""
    shown: list[Artist] = []
    for kind, colour in colours_of(bar.kind for bar in bars).items():
        shape = _path([bar for bar in bars if bar.kind == kind])
        zorder = 1.0 if kind in (WAITING, WORKING) else 2.0
        axes.add_artist(PathPatch(shape, facecolor=colour, linewidth=0, snap=False, zorder=zorder))
        shown.append(Patch(facecolor=colour, label=kind))
    return shown


def _path(bars: list[LaneBar]) -> Path:
    vertices: list[tuple[float, float]] = []
    for bar in bars:
        top, bottom = bar.lane - bar.height / 2, bar.lane + bar.height / 2
        corners = (bar.start, top), (bar.end, top), (bar.end, bottom), (bar.start, bottom), (bar.start, top)
        vertices.extend(corners)
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    return Path(vertices, codes * len(bars))


def draw_incidents(
    axes: Axes, incidents: list[Incident], window: Window, lanes: dict[int, int], inches: float
) -> list[Artist]:
    """Draw ``incidents`` as marks in the lanes (rows), with labels where they matter and there is room.

    Args:
        lanes: {worker: its lane, counted from the top}.
        inches: the width of the drawing.

    Returns:
        The handles for the legend.
    """
    there = dict.fromkeys(incident.kind for incident in incidents)
    kinds = [*(kind for kind in _MARKS if kind in there), *(kind for kind in there if kind not in _MARKS)]
    shown: list[Artist] = []
    for kind in kinds:
        marker, face, size = _MARKS.get(kind, _OTHER_MARK)
        mine = [incident for incident in incidents if incident.kind == kind]
        marks = Line2D(
            [window.second(incident.at_ns) for incident in mine],
            [lanes[incident.worker] for incident in mine],
            linestyle="",
            marker=marker,
            markersize=size,
            markerfacecolor=face,
            markeredgecolor="white" if kind == "died" else "black",
            label=kind,
            clip_on=False,
            zorder=5,
        )
        axes.add_line(marks)
        shown.append(marks)
    told = [incident for incident in incidents if incident.kind in _IN_WORDS or incident.kind not in _MARKS]
    _draw_words(axes, told, window, lanes, inches)
    return shown


def _draw_words(axes: Axes, incidents: list[Incident], window: Window, lanes: dict[int, int], inches: float) -> None:
    room = TextRoom(inches)
    for incident in incidents:
        text = shortened(f"{incident.kind}: {incident.text}" if incident.text else incident.kind, 60)
        second, lane = window.second(incident.at_ns), lanes[incident.worker]
        place = room.take(text, second / window.seconds, [lane])
        if place is not None:
            axes.annotate(
                text,
                (second, lane),
                (9 if place.is_right else -9, 0),
                textcoords="offset points",
                ha=place.align,
                va="center_baseline",
                fontsize=SIZE,
                zorder=6,
                parse_math=False,
                bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.9},
            )
