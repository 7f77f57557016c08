"""Finds out whether ``.cache()`` would make a loop faster: what takes most of a job, and is the same in each epoch."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from workers.batch.memory_limit import available_nbytes
from workers.checks import function_name
from workers.job.function_use import FunctionUse, Uses
from workers.job.task import chain_of
from workers.report.verdict import CacheAdvice
from workers.sequence.base import Sequence, plan_of
from workers.sequence.clock import with_clock
from workers.sequence.item_keys import check_keys, num_keys
from workers.sequence.plan import Plan

if TYPE_CHECKING:
    from .loop import Loop

_NS_PER_BYTE = 0.2  # of reading an item from the cache: it is copied once
_LEAST_SHARE = 0.3  # of a job; below this, a cache is not worth mentioning


def advice_for(loop: Loop, uses: Uses) -> CacheAdvice | None:
    """Return what a cache would do for ``loop``, given the measured ``uses`` of its functions; None if too little."""
    total = uses.get("", FunctionUse())
    parts = [each for each in chain_of(loop.sequence) if isinstance(each, Sequence)]
    if not total.ns or any(each._caches() for each in parts):
        return None
    steady = list(
        itertools.takewhile(lambda each: not each[1].draws, ((name, use) for name, use in uses.items() if name))
    )
    if not steady:
        return None
    name, last = steady[-1]
    spent_ns = sum(use.ns for _, use in steady)
    plan = _plan_with(parts, name)
    if plan is None or spent_ns < _LEAST_SHARE * total.ns:
        return None
    nbytes = last.nbytes // last.calls
    left_ns = total.ns - spent_ns + last.calls * nbytes * _NS_PER_BYTE
    number: int = with_clock(loop.sequence._clock, num_keys, plan)
    if number * nbytes > (available_nbytes() or 0):
        return None
    slowest, use = max(steady, key=lambda each: each[1].ns)
    return CacheAdvice(slowest, use.ns / total.ns, name, total.ns / max(left_ns, 1), number * nbytes)


def _plan_with(parts: list[Any], name: str) -> Plan | None:
    """Return the plan whose last function is called ``name``, if its items can be cached; None if there is no such."""
    for each in parts:
        plan = plan_of(each)
        if plan.functions and function_name(plan.functions[-1]) == name and plan.count() is not None:
            try:
                check_keys(plan)
            except TypeError:
                return None
            return plan
    return None
