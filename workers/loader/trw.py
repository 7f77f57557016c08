"""Reads a front-end (SequenceMap) as the library trw does: by ``next()`` on the object itself, without an iterator.

Source: ``trw.train.SequenceMap``.
"""

from __future__ import annotations

from typing import Any

from workers.errors import StalePassError

from .loop import Loop
from .options import NO_LIMIT
from .sources import FedPass


def next_item(loop: Loop, timeout_s: float | None) -> Any:
    """Return the next batch of the loop's current pass; begin a pass if there is none.

    Raises:
        StopIteration: the pass is over, or no batch came within ``timeout_s``. Any error of a job.
    """
    loop.sequence._check_open()
    this_pass, loop.iterator = loop.current, None  # the pass is read without an iterator from now on
    if this_pass is None or this_pass.version != loop.clock.version:  # the epoch was set, or a state loaded
        this_pass = loop.begin()
    try:
        return loop.next(this_pass, timeout_s)
    except StalePassError:
        if loop.current is this_pass and this_pass.version == loop.clock.version:
            raise
        return next_item(loop, timeout_s)  # on_error has begun another pass


def fill_queue(loop: Loop) -> None:
    """If the source is read in this process, read items and give them to the workers until they have enough."""
    if isinstance(loop.current, FedPass):
        loop.current.fill_queue()


def has_background_jobs(loop: Loop) -> bool:
    """Return True if the loop's workers still have batches to compute."""
    return loop.pool is not None and loop.pool.engine.has_background_jobs


def max_jobs_at_once(loop: Loop) -> int | None:
    """Return ``max_queue_size`` per worker, at least 1; None if it is chosen automatically, 0 if there is no limit."""
    bound = loop.options.max_queue_size
    if bound is None:
        return None
    return 0 if bound >= NO_LIMIT else max(1, bound // loop.most_workers)
