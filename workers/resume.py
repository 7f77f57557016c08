"""Where a sequence stands, as plain JSON; and how to go on from there.

A state counts the batches that were *delivered*, whatever workers have done ahead. It knows nothing of workers, and
nothing of ranks: it is a place in the epoch that all ranks share.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import reprlib
from typing import TYPE_CHECKING, Any

from .errors import StateError
from .seeding import MAX_SEED

if TYPE_CHECKING:
    from .sequence import Sequence

FORMAT = 1
_MAX_EPOCH = 10_000_000  # hooks are called for each: a state that was damaged must not take for ever
_KEYS = ("format", "sampler", "fingerprint", "seed", "length", "epoch", "batch", "apart", "partial")


class Place:
    """Where a loop stands in its epoch: which batches it has delivered."""

    def __init__(
        self, batch: int = 0, apart: Any = (), partial: tuple[int, int] | None = None, unit: tuple[Any, ...] = ()
    ) -> None:
        self.batch = batch  # all before it were delivered
        self.apart = set(apart)  # and these behind it
        self.partial = partial  # (a batch, how many of its items were)
        self.unit = unit  # how these batches are numbered
        self.step = 1  # how many of them each one that is delivered stands for
        # Of the loop that stands here:
        self.epoch = self.version = self.loads = -1

    def passed(self, index: int) -> int:
        """Batch ``index`` was delivered. Returns: how many of its items were before."""
        if self.partial and self.partial[0] == index:
            items, self.partial = self.partial[1], None
            return items
        if self.step > 1:
            self.batch += self.step
        elif index > self.batch:
            self.apart.add(index)
        elif index == self.batch:
            self.batch += 1
            while self.apart and self.batch in self.apart:
                self.apart.remove(self.batch)
                self.batch += 1
        return 0

    @property
    def is_at_start(self) -> bool:
        return not self.batch and not self.apart and not self.partial

    def left(self, length: int) -> list[int]:
        """The batches of the epoch still to be delivered."""
        first = [self.partial[0]] if self.partial else []
        return first + [index for index in range(self.batch, length) if index not in self.apart]


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
        self.stand_at(Place())

    def stand_at(self, place: Place) -> None:
        self.is_begun = False
        self.start = place  # where loops over this epoch begin
        self.place = place  # of the loop that began last

    def begin_loop(self, unit: tuple[Any, ...], step: int = 1, is_counted: bool = True) -> Place:
        """A place for a loop that begins now."""
        start = self.start
        if unit != start.unit and not start.is_at_start:
            raise StateError("the state that was loaded counts other batches than these, such as before a batch()")
        place = Place(start.batch, start.apart, start.partial, unit)
        place.step = step
        place.epoch, place.version, place.loads = self.epoch, self.version, self.loads
        if is_counted:
            self.place = place
        return place

    def is_of_now(self, place: Place) -> bool:
        """Whether the epoch of a loop is still the current one."""
        return place.epoch == self.epoch and place.version == self.version

    def passed(self, place: Place, index: int) -> int:
        """The loop at ``place`` has delivered batch ``index``. Returns: how many of its items were before."""
        if self.is_of_now(place):
            self.is_begun = True
        return place.passed(index)

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
        raise TypeError(f"state must be a dict, as state_dict() returns it, not {_short(state)}")
    if set(state) != set(_KEYS):
        raise StateError(f"state must have the keys {sorted(_KEYS)}, not {_short(list(state))}")
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
        raise StateError(f"state is of sampler {_short(state['sampler'])}, not {sampler!r}")
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
        raise StateError(f"state is at no place in an epoch of {length} batches: {_short(state)}")
    place = Place(batch, apart, partial, sequence._unit())
    _go_to_epoch(sequence, epoch, length, place.is_at_start)
    progress = sequence._progress
    progress.loads += 1
    progress.version += 1
    progress.stand_at(place)


def _go_to_epoch(sequence: Sequence, epoch: int, length: int | None, is_at_start: bool) -> None:
    """Make ``epoch``, which is of ``length``, the current one."""
    progress = sequence._progress
    before, goes_back = progress.epoch, not sequence._has_hooks()
    lengths = []
    # Taken at the end of the epoch before, it has the length of that: the next one's was not known yet.
    if is_at_start and epoch and (goes_back or epoch > before):
        sequence._go_to_epoch(epoch - 1)
        lengths.append(sequence._length_of_epoch())
    sequence._go_to_epoch(epoch)
    lengths.append(sequence._length_of_epoch())
    if length not in lengths:
        if goes_back:
            progress.epoch = before
        raise StateError(f"state is of length {length}, not {lengths[-1]}: batches would not be the same")


def _short(value: Any) -> str:
    try:
        return _repr.repr(value)
    except Exception:  # an integer of too many digits
        return f"a {type(value).__name__}"


_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = 100
_repr.maxdict = len(_KEYS)


def _count(name: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_SEED:
        raise StateError(f"{name} of a state must be of integers >= 0, not {_short(value)}")
    return value


def _list(name: str, value: Any, length: int | None = None) -> list[Any]:
    if type(value) is not list or (length is not None and len(value) != length):
        raise StateError(f"{name} of a state must be a list{f' of {length}' if length else ''}, not {_short(value)}")
    return value


def _sampler(sequence: Sequence) -> tuple[str, str]:
    """(its class, a digest of what tells it from others), as far as it can be told in no time."""
    described = sequence._described()
    return described[0], hashlib.blake2b(json.dumps(described).encode(), digest_size=8).hexdigest()


def described(source: Any) -> list[Any]:
    """Its class, and arguments of it that can be written as JSON."""
    if hasattr(source, "_described"):
        found: list[Any] = source._described()
        return found
    return [type(source).__qualname__]
