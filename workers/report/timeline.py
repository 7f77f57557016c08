"""The recent history of a front-end (the object that a ``for`` loop reads): jobs, steps of the loop, and incidents.

All times are nanoseconds of the monotonic clock, which all processes share on Linux and macOS.
"""

from __future__ import annotations

from typing import NamedTuple

#: The worker number of jobs that the loop's own process ran.
LOOP = -1

#: The stages of a job, in their order. A Sequence that marks no stages is one stage: ``source``.
STAGES = ("source", "get_examples", "augmenter", "function_to_run", "transport")


class Span(NamedTuple):
    """The computation of a batch (a job): Span(0, 3, 17, 98_765_432_100, 5_000_000, (("source", 4_900_000),))."""

    worker: int  # its number, from 0; or LOOP
    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    start_ns: int
    job_ns: int
    stages: tuple[tuple[str, int], ...] = ()  # (stage, ns), in their order


class LoopStep(NamedTuple):
    """The request for a batch at ``asked_ns``, and its delivery at ``got_ns`` (monotonic clock).

    The loop works with the batch from ``got_ns`` until the next one's ``asked_ns``.
    """

    asked_ns: int
    got_ns: int
    num_ready: int  # finished batches when it was requested


class Incident(NamedTuple):
    """An event in a pool of workers other than a job: Incident(98_765_432_100, 0, "died", "killed by SIGKILL")."""

    at_ns: int
    worker: int  # its number; LOOP: it concerns no single worker
    kind: str  # "started", "ready", "died", "stalled", "ended", "epoch", "chosen"
    text: str = ""


class Timeline(NamedTuple):
    """The most recent jobs, steps of the loop and incidents.

    Of jobs below 1 ms, a worker process records only one every 5 ms.
    """

    spans: list[Span]
    steps: list[LoopStep]
    incidents: list[Incident]
    bound: int = 0  # of the queue, when this was made
