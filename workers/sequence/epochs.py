"""Starts an epoch of a sequence: calls the hooks, and determines the plan (jobs and their order) and the seed."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence as OrderOf
from typing import TYPE_CHECKING, Any

from workers.job import seeding
from workers.job.context import current_epoch, current_part, forget_epoch
from workers.job.stream import mix

from .clock import Clock, asking, seed_of_chain, with_clock
from .epoch_plan import EpochPlan
from .position import Position

if TYPE_CHECKING:
    from .base import Sequence
    from .plan import Plan

logger = logging.getLogger("workers")


def plan_of_epoch(sequence: Sequence[Any], clock: Clock | None = None) -> EpochPlan:
    """Return the plan (jobs and their order) of ``sequence`` for the epoch of the running job, else of ``clock``.

    Args:
        clock: the clock to use outside of a job; by default, that of a running :func:`with_clock`, or of ``sequence``.
    """
    plan, clock, epoch = sequence._plan(), clock or asking() or sequence._clock, current_epoch()
    if epoch is None:
        forget_epoch()
    number = None if plan.is_read_here else with_clock(clock, plan.count)
    seed = sequence.seed if plan.needs_seed else 0
    return EpochPlan(plan, clock.epoch if epoch is None else epoch, number, seed)


def begin_epoch(sequence: Sequence[Any]) -> tuple[EpochPlan, Position, OrderOf[int]]:
    """Start a pass (one run of a loop), and call the hooks. Return (the epoch's plan, the position, the places).

    The places are the remaining batches' numbers in the epoch's order; () if the length of the epoch is unknown.
    """
    sequence._check_open()
    live, clock = sequence._live, sequence._clock
    live.generators.look_first()  # before a hook can draw from them
    if clock.is_begun:
        clock.end_epoch(sequence)
    while True:
        clock.begin_epoch(sequence)
        plan = plan_of_epoch(sequence, clock)
        position = clock.begin_pass(plan.plan.world)
        places = plan.places(position)
        if places is None or len(places) or position.is_at_start:
            return plan, position, places or ()
        clock.end_epoch(sequence)  # too few batches remain for all ranks


def seed_of_orders(sequence: Sequence[Any], plan: Plan) -> int:
    """Return the seed of the orders in ``plan``, which ``sequence`` reads: in general, the seed of ``sequence``.

    If ``plan`` is that of one of several sources (e.g. in a mix) and has no given seed, each but the first has a seed
    of its own.
    """
    seed, part = sequence.seed, current_part()
    if not any(part) or plan.seeds:
        return seed
    return functools.reduce(lambda mixed, number: mix(mixed ^ (number + 1)), part, seed) & seeding.MAX_SEED


def seed_of(source: Sequence[Any]) -> int:
    """Return the seed of ``source``, the start of a chain: the one given to it, else the chain's, else a drawn one."""
    attributes = source.__dict__
    given: int | None = attributes.get("_given_seed")
    if given is None:
        given = seed_of_chain(source)
    if given is not None:
        return given
    seed: int | None = attributes.get("_sequence_seed")
    if seed is None:
        stream = seeding.current_stream()
        if stream is not None:  # not kept: it depends on the chain whose job is running
            return stream.seed_of_held(type(source).__qualname__)
        seed = attributes["_sequence_seed"] = seeding.draw_seed()
        logger.info("%s draws from seed %d", type(source).__name__, seed)
    return seed
