"""The epoch of a sequence, when a pass begins: its hooks are called, and what it computes is known."""

from __future__ import annotations

import logging
from collections.abc import Sequence as OrderOf
from typing import TYPE_CHECKING, Any

from workers.job import seeding

from .clock import Clock, asking, seed_of_chain, with_clock
from .plan import EpochPlan
from .position import Position

if TYPE_CHECKING:
    from .base import Sequence

logger = logging.getLogger("workers")


def plan_of_epoch(sequence: Sequence[Any], clock: Clock | None = None) -> EpochPlan:
    """What ``sequence`` computes in the current epoch: of ``clock``, or as its ``epoch`` says."""
    plan, clock, job = sequence._plan(), clock or asking() or sequence._clock, seeding.current_job()
    number = None if plan.is_read_here else with_clock(clock, plan.count)
    seed = sequence.seed if plan.needs_seed else 0
    return EpochPlan(plan, clock.epoch if job is None else job.epoch, number, seed)


def begin_epoch(sequence: Sequence[Any]) -> tuple[EpochPlan, Position, OrderOf[int]]:
    """(what the epoch of a pass that begins now computes, the pass's position, the places that are left to it)."""
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
        clock.end_epoch(sequence)  # what is left does not suffice for all shards


def seed_of(source: Sequence[Any]) -> int:
    """The seed of a sequence that is made of no other: its own, that of the chain, or one that is drawn once."""
    attributes = source.__dict__
    given: int | None = attributes.get("_given_seed")
    if given is None:
        given = seed_of_chain(source)
    if given is not None:
        return given
    seed: int | None = attributes.get("_sequence_seed")
    if seed is None:
        stream = seeding.current_stream()
        if stream is not None:  # not kept: each process would keep that of another job
            return stream.seed_of_held(type(source).__qualname__)
        seed = attributes["_sequence_seed"] = seeding.draw_seed()
        logger.info("%s draws from seed %d", type(source).__name__, seed)
    return seed
