"""Writes a report's timeline as Chrome trace events, for https://ui.perfetto.dev and chrome://tracing.

Source: Trace Event Format, ``docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU``: the JSON
object form; events of the phases M (names), X (complete), C (counter) and i (instant).
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.report.timeline import LOOP, Incident, LoopStep, Span, Timeline

from .plot import check_path

if TYPE_CHECKING:
    from workers.report.report import Report

Event = dict[str, Any]

# One process with a thread for each lane, so that viewers show them below each other in this order.
_PROCESS = 1
_LOOP_LANE = 0
_LOOP_JOBS_LANE = 1  # a separate lane, as events of a lane must nest and the loop's job may start before its wait
_FIRST_WORKER_LANE = 2


def trace(report: Report, path: str | os.PathLike[str]) -> Path:
    """Write all jobs, steps and incidents of ``report`` into a file, as a trace for viewers such as Perfetto.

    Args:
        path: the file to write: ``.json``, or ``.json.gz``, which Perfetto reads too.

    Returns:
        ``path``.

    Raises:
        TypeError, ValueError, OSError: ``path`` is not a path, has another suffix, or cannot be written.
    """
    file = check_path(path, (".json", ".json.gz"))
    timeline = report.timeline
    known = {"verdict": report.verdict, "nb_workers": report.nb_workers, "cores": report.cores, "bound": timeline.bound}
    whole = {"traceEvents": list(_events(timeline)), "displayTimeUnit": "ms", "otherData": known}
    text = json.dumps(whole, separators=(",", ":"), allow_nan=False).encode()
    file.write_bytes(gzip.compress(text, mtime=0) if file.name.lower().endswith(".gz") else text)
    return file


def _events(timeline: Timeline) -> Iterator[Event]:
    first = _first_ns(timeline)
    yield from _names(timeline)
    for span in timeline.spans:
        yield from _job(span, first)
    yield from _loop(sorted(timeline.steps), first)
    for incident in timeline.incidents:
        yield _instant(incident, first)


def _first_ns(timeline: Timeline) -> int:
    spans = (span.start_ns for span in timeline.spans)
    steps = (step.asked_ns for step in timeline.steps)
    return min([*spans, *steps, *(incident.at_ns for incident in timeline.incidents)], default=0)


def _names(timeline: Timeline) -> Iterator[Event]:
    workers = {span.worker for span in timeline.spans} | {incident.worker for incident in timeline.incidents}
    lanes = {_LOOP_LANE: "the loop"}
    if any(span.worker == LOOP for span in timeline.spans):
        lanes[_LOOP_JOBS_LANE] = "jobs of the loop"
    lanes |= {_FIRST_WORKER_LANE + worker: f"worker {worker}" for worker in sorted(workers - {LOOP})}
    yield _name("process_name", 0, name="prefetch-sequence")
    for lane, name in lanes.items():
        yield _name("thread_name", lane, name=name)
        yield _name("thread_sort_index", lane, sort_index=lane)


def _name(what: str, lane: int, **args: Any) -> Event:
    return {"ph": "M", "name": what, "pid": _PROCESS, "tid": lane, "args": args}


def _job(span: Span, first: int) -> Iterator[Event]:
    """Yield the trace event of a job, and those of its stages within it. Times are counted from ``first``."""
    lane = _LOOP_JOBS_LANE if span.worker == LOOP else _FIRST_WORKER_LANE + span.worker
    args = {"epoch": span.epoch, "index": span.index}
    end = span.start_ns + span.job_ns
    yield _complete("job", lane, span.start_ns - first, end - first, args)
    at = span.start_ns
    for stage, ns in span.stages:
        until = min(at + ns, end)  # measured separately, their sum may exceed the job by some ns
        yield _complete(stage, lane, at - first, until - first, args)
        at = until


def _loop(steps: list[LoopStep], first: int) -> Iterator[Event]:
    """Yield the trace events of the loop: its waits, its steps between them, and the number of finished batches.

    Times are counted from ``first``.
    """
    for at, step in enumerate(steps):
        asked, got = step.asked_ns - first, step.got_ns - first
        yield _complete("wait", _LOOP_LANE, asked, got, {"ready": step.num_ready})
        counted = {"ph": "C", "name": "finished batches", "pid": _PROCESS, "ts": asked / 1000}
        yield {**counted, "args": {"n": step.num_ready}}
        if at + 1 < len(steps):
            yield _complete("step", _LOOP_LANE, got, steps[at + 1].asked_ns - first, {})


def _complete(name: str, lane: int, start: int, end: int, args: Event) -> Event:
    ts, dur = start / 1000, max(end - start, 0) / 1000  # microseconds
    return {"ph": "X", "name": name, "pid": _PROCESS, "tid": lane, "ts": ts, "dur": dur, "args": args}


def _instant(incident: Incident, first: int) -> Event:
    """Return the trace event of an incident: a mark in the lane (row) of its worker, or through all lanes."""
    is_of_all = incident.worker == LOOP
    lane = _LOOP_LANE if is_of_all else _FIRST_WORKER_LANE + incident.worker
    event = {"ph": "i", "name": incident.kind, "pid": _PROCESS, "tid": lane, "s": "p" if is_of_all else "t"}
    return {**event, "ts": (incident.at_ns - first) / 1000, "args": {"text": incident.text}}
