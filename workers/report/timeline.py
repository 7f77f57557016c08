"""What happened when, lately: the jobs of the workers, the steps of the loop, and what befell the workers.

All times are of the monotonic clock, in nanoseconds, which on Linux and macOS is the same in all processes.
"""

from __future__ import annotations

from typing import NamedTuple

#: The worker of jobs that the loop's own process ran.
LOOP = -1

#: The stages of a job, in their order. What a Sequence does that names no stages is one: ``source``.
STAGES = ("source", "get_examples", "augmenter", "function_to_run", "transport")


class Span(NamedTuple):
    """A job: Span(0, 3, 17, 98_765_432_100, 5_000_000, (("source", 4_900_000), ("transport", 100_000)))."""

    worker: int  # the number of its lane, from 0; LOOP
    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    start_ns: int
    job_ns: int
    stages: tuple[tuple[str, int], ...] = ()  # (stage, ns), one after the other


class LoopStep(NamedTuple):
    """A batch, as the loop got it. Between ``got_ns`` and the next one's ``asked_ns`` the loop works with it."""

    asked_ns: int
    got_ns: int
    num_ready: int  # batches that were finished when it was asked for


class Incident(NamedTuple):
    """Something that is no job: Incident(98_765_432_100, 0, "died", "killed by SIGKILL")."""

    at_ns: int
    worker: int  # of a lane; LOOP: it is not about one
    kind: str  # "started", "ready", "died", "stalled", "ended", "epoch", "chosen"
    text: str = ""


class Timeline(NamedTuple):
    """The last of each. Of jobs that take less than 1 ms, only one in 5 ms of a worker's is noted."""

    spans: list[Span]
    steps: list[LoopStep]
    incidents: list[Incident]
    bound: int = 0  # of the queue, when it was made
