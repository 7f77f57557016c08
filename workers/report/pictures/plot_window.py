"""Which part of a timeline is drawn: the latest that all of it covers, and no more than can be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from workers.report.timeline import LOOP, Span, Timeline

NS = 1_000_000_000
_SECONDS = 10  # that are drawn
_MOST_SECONDS = 60  # where jobs are long
_FEW_JOBS = 20  # of a lane, for which more seconds are drawn
_MOST_JOBS = 1_500  # in all lanes: an SVG of them stays below a megabyte
_MOST_OF_A_LANE = 120  # jobs or steps: ten pixels for each
_HELD = 50  # what is shorter has forgotten nothing yet


class Window(NamedTuple):
    """From ``start_ns`` to ``end_ns``, of the clock of the timeline."""

    start_ns: int
    end_ns: int

    @property
    def seconds(self) -> float:
        """How long it is."""
        return (self.end_ns - self.start_ns) / NS

    def second(self, at_ns: float) -> float:
        """A moment, in seconds since its start."""
        return (at_ns - self.start_ns) / NS

    def holds(self, at_ns: int) -> bool:
        return self.start_ns <= at_ns <= self.end_ns

    def overlaps(self, start_ns: int, end_ns: int) -> bool:
        return end_ns >= self.start_ns and start_ns <= self.end_ns

    def clip(self, start_ns: float, end_ns: float) -> tuple[float, float]:
        """The part of it that lies in the window, as two moments in seconds."""
        return self.second(max(start_ns, self.start_ns)), self.second(min(end_ns, self.end_ns))


def window_of(timeline: Timeline) -> Window | None:
    """What is drawn of ``timeline``; None: there is nothing."""
    last_job = [max(span.start_ns + span.job_ns for span in timeline.spans)] if timeline.spans else []
    last_step = [max(step.got_ns for step in timeline.steps)] if timeline.steps else []
    ends = sorted(last_job + last_step, reverse=True)
    moments = [incident.at_ns for incident in timeline.incidents]
    if not ends and not moments:
        return None
    if not ends:
        return _until(max(moments), timeline)
    # Workers that end long after the last job are not worth an empty picture; one that has just died is.
    ends[0] = max([ends[0], *(at for at in moments if at <= ends[0] + _SECONDS * NS)])
    windows = [_until(end, timeline) for end in ends]
    # Tiny jobs may all have ended before the last steps that can be drawn: then the last moments with both are drawn.
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
    """The workers that have a lane, ascending: those there are, and those that were there in the window."""
    jobs = {span.worker for span in timeline.spans if window.overlaps(span.start_ns, span.start_ns + span.job_ns)}
    befell = {incident.worker for incident in timeline.incidents if window.holds(incident.at_ns)}
    return sorted({*numbers, *jobs, *befell} - {LOOP})


def _covered_since(timeline: Timeline) -> int:
    """Since when both jobs and steps are held: of each only the last are, and tiny steps are forgotten first."""
    jobs = min((span.start_ns for span in timeline.spans), default=None)
    steps = min(timeline.steps, key=lambda step: step.asked_ns, default=None)
    if jobs is not None and steps is not None and steps.asked_ns <= jobs <= steps.got_ns:
        return steps.asked_ns  # the loop waits for the first job: it is the beginning
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
    """The last seconds; more of them where that is a few jobs only."""
    since = end - _SECONDS * NS
    if spans:
        lane = Counter(span.worker for span in spans).most_common(1)[0][0]
        jobs = [span.start_ns for span in spans if span.worker == lane]
        since = min(since, jobs[-_FEW_JOBS:][0])
    return max(since, end - _MOST_SECONDS * NS)


def _crowded_since(spans: list[Span], asked: list[int]) -> list[int]:
    """For each lane that holds more than can be drawn: since when it does not."""
    lanes: dict[int, list[int]] = {}
    for span in spans:
        lanes.setdefault(span.worker, []).append(span.start_ns)
    most = min(_MOST_OF_A_LANE, max(_MOST_JOBS // max(len(lanes), 1), _FEW_JOBS))
    since = [starts[-most] for starts in lanes.values() if len(starts) > most]
    return since + ([asked[-_MOST_OF_A_LANE]] if len(asked) > _MOST_OF_A_LANE else [])
