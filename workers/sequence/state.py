"""Saves a sequence's position in an epoch as plain JSON, and moves a sequence to a saved position.

A state counts the batches that were *delivered*, not those that workers have computed ahead, so it does not depend on
the workers. Nor does it depend on the rank (except after ``rebatch``): all ranks share one position in the epoch.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from workers.checks import short
from workers.errors import StateError, add_note
from workers.job.seeding import MAX_SEED

from .clock import with_clock
from .epoch_plan import EpochPlan
from .epochs import plan_of_epoch
from .position import Position

if TYPE_CHECKING:
    from .base import Sequence

FORMAT = 1
_MAX_EPOCH = 10_000_000
_MAX_HOOKED = 100_000  # the most epochs whose hooks load() calls: about ten seconds if the hooks do nothing
_ORDER = "order"  # the key of the order's hash, only in states within an epoch whose order was drawn
_KEYS = ("format", "sampler", "fingerprint", "seed", "length", "epoch", "batch", "apart", "partial")


class State(NamedTuple):
    """The content of a saved state, e.g. State(sampler="Images", seed=1, epoch=2, position=Position(batch=3), ...)."""

    sampler: str  # the class of the sequence
    fingerprint: str  # a digest of the sequence's identity: its class and the arguments that matter
    seed: int
    length: int | None  # the number of batches in an epoch, before slices; None if unknown
    epoch: int
    position: Position
    order: str | None = None  # a hash of the epoch's order, if one was drawn and some of it delivered


def named(identity: list[Any]) -> tuple[str, str]:
    """Return (class name, hexadecimal digest) of the ``identity`` that :func:`identity_of` returns for a sequence."""
    text = json.dumps(identity, default=_as_json)
    return identity[0], hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _as_json(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else type(value).__qualname__  # .item() is for numpy's numbers


def written(state: State) -> dict[str, Any]:
    """Return ``state`` as a dict of plain JSON, as ``state_dict()`` returns it.

    Raises:
        StateError: the other ranks could not resume from this position.
    """
    if state.position.is_between:
        raise StateError(
            "no state can be taken here, where a batch has raised an error and samples before it remain, because "
            "other ranks could not resume from it: take the state after the next batch"
        )
    batch, partial, _ = state.position.delivered
    made = {
        "format": FORMAT,
        "sampler": state.sampler,
        "fingerprint": state.fingerprint,
        "seed": state.seed,
        "length": state.length,
        "epoch": state.epoch,
        "batch": batch,
        "apart": sorted(state.position.apart),
        "partial": None if partial is None else list(partial),
    }
    return made if state.order is None else {**made, _ORDER: state.order}


def read(written: Any) -> State:
    """Return the State that the dict ``written`` stands for. This is the inverse of :func:`written`.

    Raises:
        TypeError, StateError: ``written`` is not a valid state.
    """
    if not isinstance(written, dict):
        raise TypeError(f"state must be a dict, as state_dict() returns it, not {short(written)}")
    if set(written) - {_ORDER} != set(_KEYS):
        raise StateError(f"state must have the keys {sorted(_KEYS)}, not {short(list(written))}")
    form, seed, epoch, batch = (_count(name, written[name]) for name in ("format", "seed", "epoch", "batch"))
    length = None if written["length"] is None else _count("length", written["length"])
    apart = [_count("apart", each) for each in _list("apart", written["apart"])]
    partial = None
    if written["partial"] is not None:
        index, items = (_count("partial", each) for each in _list("partial", written["partial"], 2))
        partial = index, items
    if form != FORMAT:
        raise StateError(f"state is of format {form}, but this version reads format {FORMAT}")
    if epoch > _MAX_EPOCH:
        raise StateError(f"epoch of a state must be at most {_MAX_EPOCH:,}, not {epoch:,}")
    is_place = all(before < each for before, each in itertools.pairwise([batch, *apart]))
    if length is not None:
        is_place &= all(each < length for each in apart) and (batch < length or batch == 0 or partial is not None)
        is_place &= batch <= length or partial is not None  # beyond the length: a rank's last batch is padded
        is_place &= partial is None or partial[0] < length
    if partial is not None:  # its batch must be among the delivered ones
        is_place &= partial[1] >= 1 and (partial[0] < batch or partial[0] in apart)
    if not is_place:
        raise StateError(f"state is at no place in an epoch of {length} batches: {short(written)}")
    position = Position(batch, apart, partial)
    order = written.get(_ORDER)
    return State(written["sampler"], written["fingerprint"], seed, length, epoch, position, order)


def _count(name: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_SEED:
        raise StateError(f"{name} of a state must be of integers >= 0, not {short(value)}")
    return value


def _list(name: str, value: Any, length: int | None = None) -> list[Any]:
    if type(value) is not list or (length is not None and len(value) != length):
        raise StateError(f"{name} of a state must be a list{f' of {length}' if length else ''}, not {short(value)}")
    return value


def check_same(state: State, sampler: str, fingerprint: str, seed: int) -> None:
    """Raise StateError unless ``state`` is of a sequence of class ``sampler``, with this ``seed`` and ``fingerprint``.

    The fingerprint is the digest, by :func:`named`, of the sequence's class and the arguments that matter.
    """
    if state.seed != seed:
        raise StateError(f"state is of seed {state.seed}, not {seed}; make the sequence with that seed")
    if type(state.sampler) is not str or state.sampler != sampler:
        raise StateError(f"state is of sampler {short(state.sampler)}, not {sampler!r}")
    if type(state.fingerprint) is not str or state.fingerprint != fingerprint:
        raise StateError(f"state is of a {sampler} of other arguments or data: batches would not be the same")


def taken(sequence: Sequence) -> dict[str, Any]:
    """Return the state of ``sequence``: the position of the loop over it, as a dict of plain JSON.

    Raises:
        StateError: other ranks could not resume from this position.
    """
    clock, plan = sequence._clock, sequence._plan()
    epoch, position = clock.epoch, clock.position
    here = EpochPlan(plan, epoch, with_clock(clock, plan.count))
    length = here.number
    batch, partial, _ = position.delivered
    if partial is not None and plan.shard is not None and not plan.is_rebatched:
        raise StateError(
            "no state can be taken within a batch whose function returned a list, or whose samples were skipped, "
            "because other ranks could not resume from it: take the state when its last item was delivered"
        )
    is_at_end = batch and here.is_at_end(batch)
    if is_at_end and plan.is_read_here:  # the source may have more items than its length says
        is_at_end = sequence._live.is_source_at_end()
    if partial is None and is_at_end:
        epoch, position = epoch + 1, Position()
    order = None if position.is_at_start or not plan.drawn else _order_of(sequence)
    made = written(State(*named(identity_of(sequence, epoch)), sequence.seed, length, epoch, position, order))
    if plan.is_read_here and length is not None and max(made["batch"], *made["apart"], 0) >= length:
        made["length"] = None  # the source had more items than its length says
    return made


def identity_of(sequence: Sequence, epoch: int) -> list[Any]:
    """Return what identifies ``sequence`` in a state of ``epoch``, as JSON: class, arguments, and other seeds."""
    return with_clock(sequence._clock.at(epoch), _identity, sequence)  # type: ignore[no-any-return]


def _identity(sequence: Sequence) -> list[Any]:
    plan, seed = sequence._plan(), sequence.seed
    of_rank = plan_of_epoch(sequence).identity_of_rank() if plan.shard is not None and plan.is_rebatched else []
    others = [each for each in plan.seeds if each != seed]
    return [*plan.identity, *of_rank, *([["seeds", *others]] if others else [])]


def _count_places(sequence: Sequence) -> int | None:
    """Return the number of batches in the current epoch, of all ranks together, before slices; None if it is unknown.

    A state stores this number, because it determines which batches a slice selects; the fingerprint covers the slice.
    """
    length: int | None = with_clock(sequence._clock, sequence._plan().count)
    return length


def _order_of(sequence: Sequence) -> str:
    """Return the hashes of the orders that were drawn (e.g. by samplers) for the current epoch of ``sequence``."""
    drawn = sequence._plan().drawn
    order: str = with_clock(sequence._clock, lambda: " ".join(each._digest_of_drawn() for each in drawn))
    return order


def load(sequence: Sequence, state: State) -> None:
    """Move ``sequence`` to the position in ``state``, and call its hooks for the epochs in between.

    Raises:
        StateError: ``state`` is of another sequence, length or seed, or of an epoch that calling hooks cannot reach.
    """
    sampler, fingerprint = named(identity_of(sequence, state.epoch))
    check_same(state, sampler, fingerprint, sequence.seed)
    clock, epoch = sequence._clock, state.epoch
    before, goes_back = clock.epoch, not sequence._has_hooks()
    if not goes_back and epoch - before > _MAX_HOOKED:
        raise StateError(
            f"state is of epoch {epoch:,}, and on the way from epoch {before:,} on_epoch_begin and on_epoch_end would "
            f"be called for each epoch, which is done for {_MAX_HOOKED:,} epochs at most. If the state is not damaged, "
            f"give the {sampler} what its hooks would have made, set its epoch to {epoch}, and then load the state"
        )
    try:
        lengths = []
        # A state taken at the end of an epoch has the length of that epoch: the length of the next was not known yet.
        if state.position.is_at_start and epoch and (goes_back or epoch > before):
            clock.go_to(sequence, epoch - 1)
            lengths.append(_count_places(sequence))
        clock.go_to(sequence, epoch)
        lengths.append(_count_places(sequence))
        if state.order is not None and state.order != _order_of(sequence):
            raise StateError(
                f"the sampler gives epoch {epoch} another order than when the state was taken, so that other batches "
                "would follow: load the state of the sampler first, or make its order depend on the epoch alone"
            )
        if state.length not in lengths and (state.length is not None or not sequence._plan().is_read_here):
            raise StateError(f"state is of length {state.length}, not {lengths[-1]}: batches would not be the same")
    except BaseException as error:
        if goes_back:
            clock.epoch = before
        elif clock.epoch != before:
            add_note(
                error, f"on_epoch_end was called on the way: the sequence is now at the start of epoch {clock.epoch}"
            )
        if isinstance(error, StateError) or not isinstance(error, Exception):
            raise
        raise StateError(f"state is of epoch {epoch}, for which there is no length: {short(error)}") from error
    clock.load(state.position)
    if not state.position.is_at_start:
        clock.tell_chain(sequence)
