"""Defines the records of a front-end's recent history: its jobs, the steps of its loop, and incidents.

All times are nanoseconds of the monotonic clock, which all processes share on Linux and macOS.
"""

from __future__ import annotations

from typing import NamedTuple

#: The worker number of jobs that ran in the loop's own process.
LOOP = -1

#: The stages of a job, in order. A Sequence that marks no stages counts as one stage, ``source``.
STAGES = ("source", "get_examples", "augmenter", "function_to_run", "transport")


class Span(NamedTuple):
    """A finished job, e.g. Span(worker=0, epoch=3, index=17, start_ns=98_765_432_100, job_ns=5_000_000)."""

    worker: int  # its number, from 0; or LOOP
    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    start_ns: int
    job_ns: int
    stages: tuple[tuple[str, int], ...] = ()  # (stage, its duration in ns), in order


class LoopStep(NamedTuple):
    """One step of the loop: it requested a batch at ``asked_ns``, and got it at ``got_ns`` (monotonic clock).

    The loop works with the batch from ``got_ns`` until ``asked_ns`` of its next step.
    """

    asked_ns: int
    got_ns: int
    num_ready: int  # finished batches when it was requested


class Incident(NamedTuple):
    """An event in a pool that is not a job, e.g. Incident(at_ns=98_765_432, worker=0, kind="died", text="SIGKILL")."""

    at_ns: int
    worker: int  # its number; LOOP if the incident concerns no single worker
    kind: str  # "started", "ready", "died", "stalled", "ended", "epoch", "chosen"
    text: str = ""


class Timeline(NamedTuple):
    """The most recent jobs, steps of the loop and incidents.

    Of jobs shorter than 1 ms, a worker process records only one every 5 ms.
    """

    spans: list[Span]
    steps: list[LoopStep]
    incidents: list[Incident]
    bound: int = 0  # maximum number of batches ahead of the loop when this was made
