"""Where a sequence stands, as plain JSON; and how to go on from there.

A state counts the batches that were *delivered*, whatever workers have done ahead. It knows nothing of workers, and
nothing of ranks: it is a place in the epoch that all ranks share.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from typing import TYPE_CHECKING, Any

from .errors import StateError

if TYPE_CHECKING:
    from .sequence import Sequence

FORMAT = 1
_MAX_EPOCH = 10_000_000  # hooks are called for each: a state that was damaged must not take for ever
_KEYS = ("format", "sampler", "fingerprint", "seed", "length", "epoch", "batch", "apart", "partial")


class Progress:
    """Where a Sequence stands. Not part of what is pickled: a replica learns its epoch from each job."""

    def __init__(self) -> None:
        self.epoch = 0
        self.version = 0  # how often the epoch was set
        self.loads = 0  # how often a state was
        self.is_begun = False  # something of this epoch was read
        self.announced = -1  # the last epoch for which on_epoch_begin was called
        self.is_closed = False
        self.stand_at(0)

    def stand_at(self, batch: int, apart: Any = (), partial: tuple[int, int] | None = None) -> None:
        self.batch = batch  # all before it were delivered
        self.apart = set(apart)  # and these behind it
        self.partial = partial  # (a batch, how many of its items were)

    def passed(self, index: int) -> None:
        """Batch ``index`` was delivered."""
        if index != self.batch:
            if index > self.batch:
                self.apart.add(index)
            return
        self.batch += 1
        while self.apart and self.batch in self.apart:
            self.apart.remove(self.batch)
            self.batch += 1

    @property
    def is_at_start(self) -> bool:
        return not self.batch and not self.apart and not self.partial

    def left(self, length: int) -> list[int]:
        """The batches of the epoch still to be delivered."""
        first = [self.partial[0]] if self.partial else []
        return first + [index for index in range(self.batch, length) if index not in self.apart]

    def __reduce__(self) -> Any:
        return Progress, ()


def state_of(sequence: Sequence, partial: tuple[int, int] | None) -> dict[str, Any]:
    """What :meth:`workers.Sequence.state_dict` returns."""
    progress = sequence._progress
    epoch, batch, apart = progress.epoch, progress.batch, sorted(progress.apart)
    if partial is None and batch and sequence._is_at_end(batch):
        epoch, batch, apart = epoch + 1, 0, []
    return {
        "format": FORMAT,
        **_identity(sequence),
        "epoch": epoch,
        "batch": batch,
        "apart": apart,
        "partial": None if partial is None else list(partial),
    }


def load(sequence: Sequence, state: Any) -> None:
    """Have ``sequence`` stand where ``state`` says."""
    if not isinstance(state, dict):
        raise TypeError(f"state must be a dict, as state_dict() returns it, not {state!r:.200}")
    if set(state) != set(_KEYS):
        raise StateError(f"state must have the keys {sorted(_KEYS)}, not {sorted(map(str, state))}")
    if state["format"] != FORMAT:
        raise StateError(f"state is of format {state['format']!r}; this version reads {FORMAT}")
    own = _identity(sequence)
    if state["seed"] != own["seed"]:
        raise StateError(f"state is of seed {state['seed']!r}, not {own['seed']}; make the sequence with that seed")
    for key in ("sampler", "length", "fingerprint"):
        if state[key] != own[key]:
            what = "other arguments or data" if key == "fingerprint" else f"{key} {state[key]!r}, not {own[key]!r}"
            raise StateError(f"state is of a {state['sampler']} of {what}: batches would not be the same")
    epoch, batch = (_count(name, state[name]) for name in ("epoch", "batch"))
    apart = [_count("apart", each) for each in _list("apart", state["apart"])]
    partial = None
    if state["partial"] is not None:
        index, items = (_count("partial", each) for each in _list("partial", state["partial"], 2))
        partial = index, items
    if epoch > _MAX_EPOCH:
        raise StateError(f"epoch of a state must be at most {_MAX_EPOCH:,}, not {epoch:,}")
    length = own["length"]
    is_place = all(before < each for before, each in itertools.pairwise([batch, *apart]))
    if length is not None:
        is_place &= all(each < length for each in apart) and (batch < length or batch == 0 or partial is not None)
        is_place &= batch <= length
    if partial is not None:  # one of those that were delivered, in part
        is_place &= partial[1] >= 1 and (partial[0] < batch or partial[0] in apart)
    if not is_place:
        raise StateError(f"state is at no place in an epoch of {length} batches: {state!r:.300}")
    progress = sequence._progress
    sequence._go_to_epoch(epoch)
    progress.loads += 1
    progress.version += 1
    progress.is_begun = False
    progress.stand_at(batch, apart, partial)


def _count(name: str, value: Any) -> int:
    if type(value) is not int or value < 0:
        raise StateError(f"{name} of a state must be of integers >= 0, not {value!r:.100}")
    return value


def _list(name: str, value: Any, length: int | None = None) -> list[Any]:
    if type(value) is not list or (length is not None and len(value) != length):
        raise StateError(f"{name} of a state must be a list{f' of {length}' if length else ''}, not {value!r:.100}")
    return value


def _identity(sequence: Sequence) -> dict[str, Any]:
    """What must be the same for batches to be the same, as far as it can be told in no time."""
    described = sequence._described()
    digest = hashlib.blake2b(json.dumps(described).encode(), digest_size=8).hexdigest()
    length = sequence._length_of_epoch()
    return {"sampler": described[0], "fingerprint": digest, "seed": sequence.seed, "length": length}


def described(source: Any) -> list[Any]:
    """Its class, and arguments of it that can be written as JSON."""
    if hasattr(source, "_described"):
        found: list[Any] = source._described()
        return found
    return [type(source).__qualname__]
