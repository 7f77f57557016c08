"""Prepares a report's timeline for its web page: lanes (rows), colours, and all records as numbers in JSON."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from workers.report.timeline import LOOP, Incident

from .colours import OTHER, colours_of
from .plot_labels import shortened
from .plot_window import window_of

if TYPE_CHECKING:
    from workers.report.report import Report, Slow

_LETTERS = 300  # of an incident's text


class PageTimeline:
    """The timeline of ``report`` as its web page shows it. Times are nanoseconds since ``first_ns``.

    Attributes:
        length_ns: from the first record to the end of the last one; 0 if there is none.
        colours: {kind: colour} of the stages, and of ``OTHER``.
        incidents: the incidents in their order.
    """

    def __init__(self, report: Report) -> None:
        timeline = report.timeline
        self._spans = sorted(timeline.spans, key=lambda span: span.start_ns)
        self._steps = sorted(timeline.steps)
        self._bound = timeline.bound
        self.incidents = sorted(timeline.incidents, key=lambda incident: incident.at_ns)
        moments = [
            *chain.from_iterable((span.start_ns, span.start_ns + span.job_ns) for span in self._spans),
            *chain.from_iterable((step.asked_ns, step.got_ns) for step in self._steps),
            *(incident.at_ns for incident in self.incidents),
        ]
        self.first_ns = min(moments, default=0)
        self.length_ns = max(moments, default=0) - self.first_ns
        self._window = window_of(timeline)
        numbers = {span.worker for span in self._spans} | {incident.worker for incident in self.incidents}
        numbers |= {worker.number for worker in report.workers}
        self._lanes = [LOOP] if any(span.worker == LOOP for span in self._spans) else []
        self._lanes += sorted(numbers - {LOOP})
        self.colours = colours_of([*(stage for span in self._spans for stage, _ in span.stages), OTHER])

    def data(self) -> dict[str, Any]:
        """Return what the page's script draws, for JSON."""
        first, lanes, kinds = self.first_ns, {worker: at for at, worker in enumerate(self._lanes)}, list(self.colours)
        window = self._window
        return {
            "length": self.length_ns,
            "view": [0, 0] if window is None else [window.start_ns - first, window.end_ns - first],
            "lanes": ["loop's jobs" if worker == LOOP else f"worker {worker}" for worker in self._lanes],
            "kinds": [[kind, self.colours[kind]] for kind in kinds],
            "queue": self._bound > 0,
            # [lane, epoch, index, start, duration, then kind and duration of each stage]
            "jobs": [
                [
                    lanes[span.worker],
                    span.epoch,
                    span.index,
                    span.start_ns - first,
                    span.job_ns,
                    *chain.from_iterable((kinds.index(stage), ns) for stage, ns in span.stages),
                ]
                for span in self._spans
            ],
            # [requested, delivered, finished batches at the request]
            "steps": [[step.asked_ns - first, step.got_ns - first, step.num_ready] for step in self._steps],
            # [time, lane or -1 for all, kind, text]
            "incidents": [
                [
                    each.at_ns - first,
                    -1 if each.worker == LOOP else lanes[each.worker],
                    each.kind,
                    shortened(each.text, _LETTERS),
                ]
                for each in self.incidents
            ],
        }

    def second(self, at_ns: int) -> float:
        """Return how many seconds after the first record ``at_ns`` is."""
        return (at_ns - self.first_ns) / 1e9

    def place_of_job(self, slow: Slow) -> tuple[int, int] | None:
        """Return from when to when this job ran; None if it is no longer in the timeline."""
        found = [span for span in self._spans if (span.epoch, span.index) == (slow.epoch, slow.index)]
        if not found:
            return None
        span = min(found, key=lambda span: abs(span.job_ns / 1e9 - slow.seconds))  # it may have run several times
        return span.start_ns - self.first_ns, span.start_ns + span.job_ns - self.first_ns

    def place_of_choice(self, text: str) -> Incident | None:
        """Return the incident of this decision of ``nb_workers="auto"``; None if it is no longer in the timeline."""
        return next((each for each in reversed(self.incidents) if (each.kind, each.text) == ("chosen", text)), None)
