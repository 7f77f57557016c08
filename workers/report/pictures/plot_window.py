"""Chooses the part of a timeline to draw: the latest in which all jobs and steps are known and readable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from workers.report.timeline import LOOP, Span, Timeline

NS = 1_000_000_000
_SECONDS = 10  # drawn by default
_MOST_SECONDS = 60  # drawn if jobs are long
_FEW_JOBS = 20  # in a lane; with fewer, more seconds are drawn
_MOST_JOBS = 1_500  # in all lanes: an SVG of them stays below a megabyte
_MOST_OF_A_LANE = 120  # jobs or steps: ten pixels for each
_HELD = 50  # a shorter history is taken to be complete


class Window(NamedTuple):
    """The time from ``start_ns`` to ``end_ns``, by the timeline's monotonic clock, that a picture shows."""

    start_ns: int
    end_ns: int

    @property
    def seconds(self) -> float:
        """The length of the window in seconds."""
        return (self.end_ns - self.start_ns) / NS

    def second(self, at_ns: float) -> float:
        """Return how many seconds after the start of the window ``at_ns`` is."""
        return (at_ns - self.start_ns) / NS

    def holds(self, at_ns: int) -> bool:
        return self.start_ns <= at_ns <= self.end_ns

    def overlaps(self, start_ns: int, end_ns: int) -> bool:
        return end_ns >= self.start_ns and start_ns <= self.end_ns

    def clip(self, start_ns: float, end_ns: float) -> tuple[float, float]:
        """Return (start, end) of the part of an interval that is in the window, in seconds from the window's start."""
        return self.second(max(start_ns, self.start_ns)), self.second(min(end_ns, self.end_ns))


def window_of(timeline: Timeline) -> Window | None:
    """Return the part of ``timeline`` to draw; None if it is empty."""
    last_job = [max(span.start_ns + span.job_ns for span in timeline.spans)] if timeline.spans else []
    last_step = [max(step.got_ns for step in timeline.steps)] if timeline.steps else []
    ends = sorted(last_job + last_step, reverse=True)
    moments = [incident.at_ns for incident in timeline.incidents]
    if not ends and not moments:
        return None
    if not ends:
        return _until(max(moments), timeline)
    # The window includes incidents soon after the last job, such as a death, but not workers that ended long after it.
    ends[0] = max([ends[0], *(at for at in moments if at <= ends[0] + _SECONDS * NS)])
    windows = [_until(end, timeline) for end in ends]
    # If all tiny jobs ended before the last steps that fit, draw the last period that has both.
    return next((window for window in windows if _holds_both(window, timeline)), windows[0])


def _until(end: int, timeline: Timeline) -> Window:
    spans = sorted((span for span in timeline.spans if span.start_ns <= end), key=lambda span: span.start_ns)
    asked = sorted(step.asked_ns for step in timeline.steps if step.asked_ns <= end)
    start = min(max(_covered_since(timeline), _readable_since(spans, end), *_crowded_since(spans, asked)), end)
    return Window(start, max(end, start + NS // 1000))


def _holds_both(window: Window, timeline: Timeline) -> bool:
    has_jobs = any(window.overlaps(span.start_ns, span.start_ns + span.job_ns) for span in timeline.spans)
    return has_jobs and any(window.overlaps(step.asked_ns, step.got_ns) for step in timeline.steps)


def lanes_of(timeline: Timeline, window: Window, numbers: Iterable[int]) -> list[int]:
    """Return the numbers of the workers that get a lane (row), ascending: ``numbers``, and any in the window."""
    jobs = {span.worker for span in timeline.spans if window.overlaps(span.start_ns, span.start_ns + span.job_ns)}
    befell = {incident.worker for incident in timeline.incidents if window.holds(incident.at_ns)}
    return sorted({*numbers, *jobs, *befell} - {LOOP})


def _covered_since(timeline: Timeline) -> int:
    """Return since when, in ns, both jobs and steps of the loop are known.

    Only the last of each are kept, and many tiny ones push out older ones soon.
    """
    jobs = min((span.start_ns for span in timeline.spans), default=None)
    steps = min(timeline.steps, key=lambda step: step.asked_ns, default=None)
    if jobs is not None and steps is not None and steps.asked_ns <= jobs <= steps.got_ns:
        return steps.asked_ns  # the loop waited for the first job, so this is the start
    since = []
    if jobs is not None and len(timeline.spans) >= _HELD:
        since.append(jobs)
    if steps is not None and len(timeline.steps) >= _HELD:
        since.append(steps.asked_ns)
    if since:
        return max(since)
    known = [] if jobs is None else [jobs]
    known += [] if steps is None else [steps.asked_ns]
    return min([*known, *(incident.at_ns for incident in timeline.incidents)])


def _readable_since(spans: list[Span], end: int) -> int:
    """Return the time, in ns, from which to draw up to ``end``: the last seconds, or more if they hold few jobs."""
    since = end - _SECONDS * NS
    if spans:
        lane = Counter(span.worker for span in spans).most_common(1)[0][0]
        jobs = [span.start_ns for span in spans if span.worker == lane]
        since = min(since, jobs[-_FEW_JOBS:][0])
    return max(since, end - _MOST_SECONDS * NS)


def _crowded_since(spans: list[Span], asked: list[int]) -> list[int]:
    """Return, in ns, where each row (of a worker, or the loop) with too much to draw must begin to be drawn.

    Args:
        spans: the jobs, in order.
        asked: when the loop requested its batches, in order.
    """
    lanes: dict[int, list[int]] = {}
    for span in spans:
        lanes.setdefault(span.worker, []).append(span.start_ns)
    most = min(_MOST_OF_A_LANE, max(_MOST_JOBS // max(len(lanes), 1), _FEW_JOBS))
    since = [starts[-most] for starts in lanes.values() if len(starts) > most]
    return since + ([asked[-_MOST_OF_A_LANE]] if len(asked) > _MOST_OF_A_LANE else [])
