"""Where a sequence stands, as plain JSON; and how to go on from there.

A state counts the batches that were *delivered*, whatever workers have done ahead. It knows nothing of workers, and
nothing of ranks: it is a place in the epoch that all ranks share.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from typing import TYPE_CHECKING, Any

from workers.checks import short
from workers.errors import StateError, add_note
from workers.job.seeding import MAX_SEED

if TYPE_CHECKING:
    from .base import Sequence

FORMAT = 1
_MAX_EPOCH = 10_000_000  # hooks are called for each: a state that was damaged must not take for ever
_KEYS = ("format", "sampler", "fingerprint", "seed", "length", "epoch", "batch", "apart", "partial")


Where = tuple[int, tuple[int, int] | None, int | None]


class Place:
    """Where a loop stands in its epoch: which batches it has delivered."""

    def __init__(
        self, batch: int = 0, apart: Any = (), partial: tuple[int, int] | None = None, unit: tuple[Any, ...] = ()
    ) -> None:
        #: (all before this batch were delivered, (one of those that were, how many of its items) if not all, another
        #: one that was). Replaced as a whole, so that no Ctrl-C finds it half changed.
        self.where: Where = batch, partial, None
        self._apart = set(apart)  # delivered too, behind those; what is before them is taken out late
        self._first = batch  # the first that may still have to be
        self.unit = unit  # how these batches are numbered
        self.step = 1  # how many of them each one that is delivered stands for
        # Of the loop that stands here:
        self.epoch = self.version = self.loads = -1

    def behind(self, index: int) -> tuple[Where, int]:
        """(what ``where`` is when batch ``index`` was delivered, how many of its items were before)."""
        batch, partial, newest = self.where
        apart = self._apart
        if newest is not None:
            apart.add(newest)
        if not apart:
            self._first = batch
        while self._first < batch:
            apart.discard(self._first)
            self._first += 1
        if partial and partial[0] == index:
            return (batch, None, None), partial[1]
        newest = None
        if self.step > 1:
            batch += self.step
        elif index > batch:
            newest = index
        elif index == batch:
            batch += 1
            while batch in apart:
                batch += 1
        return (batch, partial, newest), 0

    @property
    def batch(self) -> int:
        """All before it were delivered."""
        return self.where[0]

    @property
    def apart(self) -> set[int]:
        """Those that were delivered behind it."""
        batch, _, newest = self.where
        return {each for each in self._apart | {newest} if each is not None and each > batch}

    @property
    def partial(self) -> tuple[int, int] | None:
        """(a batch, how many of its items were delivered), if not all of them were."""
        return self.where[1]

    @property
    def is_at_start(self) -> bool:
        return self.where == (0, None, None) and not self._apart

    def left(self, length: int) -> list[int]:
        """The batches of the epoch still to be delivered."""
        apart = self.apart
        first = [self.partial[0]] if self.partial else []
        return first + [index for index in range(self.batch, length) if index not in apart]


class Progress:
    """Where a Sequence stands, and all that is made of it. Not part of what is pickled: a replica learns its epoch
    from each job.

    A loop counts in a place of its own. So one that was left behind by another, or by a change of the epoch, may be
    read on and counts for nothing.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.version = 0  # how often the epoch was set
        self.loads = 0  # how often a state was
        self.is_begun = False  # something of this epoch was read
        self.announced = -1  # the last epoch for which on_epoch_begin was called
        self.is_closed = False
        self.start = Place()  # where loops over this epoch begin
        self.place = self.start  # of the loop that began last

    def stand_at(self, epoch: int, place: Place, is_load: bool = False) -> None:
        """Go there."""
        version, loads = self.version + 1, self.loads + is_load
        # Without a call in between, so that no Ctrl-C finds it half changed.
        self.epoch, self.version, self.loads, self.is_begun = epoch, version, loads, False
        self.start = self.place = place

    def begin_loop(self, unit: tuple[Any, ...], step: int = 1, is_counted: bool = True) -> Place:
        """A place for a loop that begins now."""
        start = self.start
        if unit != start.unit and not start.is_at_start:
            raise StateError("the state that was loaded counts other batches than these, such as before a batch()")
        place = Place(start.batch, start.apart, start.partial, unit)
        place.step = step
        place.epoch, place.loads = self.epoch, self.loads
        if is_counted:
            place.version = self.version
            self.place = place
        return place

    def is_of_now(self, place: Place) -> bool:
        """Whether the epoch of a loop is still the current one."""
        return place.epoch == self.epoch and place.version == self.version

    def __reduce__(self) -> Any:
        return Progress, ()


def state_of(sequence: Sequence, partial: tuple[int, int] | None) -> dict[str, Any]:
    """What :meth:`workers.Sequence.state_dict` returns.

    Raises:
        StateError: what is read is another sequence, made from this one or that this one was made from.
    """
    progress = sequence._progress
    place = progress.place
    if place.unit != sequence._unit() and not place.is_at_start:
        raise StateError("what is read counts other batches than these, such as behind a batch(): take its state")
    epoch, batch, apart = progress.epoch, place.batch, sorted(place.apart)
    if partial is not None and not partial[1]:  # counted, and then kept back by a Ctrl-C
        index, partial = partial[0], None
        if index < batch:
            apart = [*range(index + 1, batch), *apart] if place.step == 1 else []
            batch = index if place.step == 1 else batch - place.step
        else:
            apart.remove(index)
    if partial is None and batch and sequence._is_at_end(batch):
        epoch, batch, apart = epoch + 1, 0, []
    sampler, fingerprint = _sampler(sequence)
    return {
        "format": FORMAT,
        "sampler": sampler,
        "fingerprint": fingerprint,
        "seed": sequence.seed,
        "length": sequence._length_of_epoch(),
        "epoch": epoch,
        "batch": batch,
        "apart": apart,
        "partial": None if partial is None else list(partial),
    }


def load(sequence: Sequence, state: Any) -> None:
    """Have ``sequence`` stand where ``state`` says."""
    if not isinstance(state, dict):
        raise TypeError(f"state must be a dict, as state_dict() returns it, not {short(state)}")
    if set(state) != set(_KEYS):
        raise StateError(f"state must have the keys {sorted(_KEYS)}, not {short(list(state))}")
    form, seed, epoch, batch = (_count(name, state[name]) for name in ("format", "seed", "epoch", "batch"))
    length = None if state["length"] is None else _count("length", state["length"])
    apart = [_count("apart", each) for each in _list("apart", state["apart"])]
    partial = None
    if state["partial"] is not None:
        index, items = (_count("partial", each) for each in _list("partial", state["partial"], 2))
        partial = index, items
    if form != FORMAT:
        raise StateError(f"state is of format {form}; this version reads {FORMAT}")
    if seed != sequence.seed:
        raise StateError(f"state is of seed {seed}, not {sequence.seed}; make the sequence with that seed")
    sampler, fingerprint = _sampler(sequence)
    if type(state["sampler"]) is not str or state["sampler"] != sampler:
        raise StateError(f"state is of sampler {short(state['sampler'])}, not {sampler!r}")
    if type(state["fingerprint"]) is not str or state["fingerprint"] != fingerprint:
        raise StateError(f"state is of a {sampler} of other arguments or data: batches would not be the same")
    if epoch > _MAX_EPOCH:
        raise StateError(f"epoch of a state must be at most {_MAX_EPOCH:,}, not {epoch:,}")
    is_place = all(before < each for before, each in itertools.pairwise([batch, *apart]))
    if length is not None:
        is_place &= all(each < length for each in apart) and (batch < length or batch == 0 or partial is not None)
        is_place &= batch <= length
    if partial is not None:  # one of those that were delivered, in part
        is_place &= partial[1] >= 1 and (partial[0] < batch or partial[0] in apart)
    if not is_place:
        raise StateError(f"state is at no place in an epoch of {length} batches: {short(state)}")
    place = Place(batch, apart, partial, sequence._unit())
    _go_to_epoch(sequence, epoch, length, place.is_at_start)
    progress = sequence._progress
    progress.stand_at(progress.epoch, place, is_load=True)


def _go_to_epoch(sequence: Sequence, epoch: int, length: int | None, is_at_start: bool) -> None:
    """Make ``epoch``, which is of ``length``, the current one."""
    progress = sequence._progress
    before, goes_back = progress.epoch, not sequence._has_hooks()
    try:
        lengths = []
        # Taken at the end of the epoch before, it has the length of that: the next one's was not known yet.
        if is_at_start and epoch and (goes_back or epoch > before):
            sequence._go_to_epoch(epoch - 1)
            lengths.append(sequence._length_of_epoch())
        sequence._go_to_epoch(epoch)
        lengths.append(sequence._length_of_epoch())
        if length not in lengths:
            raise StateError(f"state is of length {length}, not {lengths[-1]}: batches would not be the same")
    except BaseException as error:
        if goes_back:
            progress.epoch = before
        elif progress.epoch != before:
            add_note(error, f"on_epoch_end was called on the way: it stands at the beginning of epoch {progress.epoch}")
        if isinstance(error, StateError) or not isinstance(error, Exception):
            raise
        raise StateError(f"state is of epoch {epoch}, for which there is no length: {short(error)}") from error


def _count(name: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_SEED:
        raise StateError(f"{name} of a state must be of integers >= 0, not {short(value)}")
    return value


def _list(name: str, value: Any, length: int | None = None) -> list[Any]:
    if type(value) is not list or (length is not None and len(value) != length):
        raise StateError(f"{name} of a state must be a list{f' of {length}' if length else ''}, not {short(value)}")
    return value


def _sampler(sequence: Sequence) -> tuple[str, str]:
    """(its class, a digest of what tells it from others), as far as it can be told in no time."""
    described = sequence._described()
    return described[0], hashlib.blake2b(json.dumps(described, default=_as_json).encode(), digest_size=8).hexdigest()


def _as_json(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else type(value).__qualname__  # a number of numpy's


def described(source: Any) -> list[Any]:
    """Its class, and arguments of it that can be written as JSON."""
    if hasattr(source, "_described"):
        found: list[Any] = source._described()
        return found
    return [type(source).__qualname__]
