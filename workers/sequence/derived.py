"""What all sequences have in common that are made from another one."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from collections.abc import Sequence as OrderOf
from typing import Any

from workers.errors import StateError
from workers.for_keras.endless import Counted

from .answers import defines_hooks
from .base import Sequence
from .chain import Batch_co
from .clock import Clock, asking, on_behalf_of, seed_of_chain
from .indexed import is_indexed
from .looks import Looks, SequenceLooks
from .order import Permuted
from .source import check_source


class SequenceDerived(Sequence[Batch_co]):
    """A sequence made from another one, whose seed, hooks and jobs it has. Its epochs are its own.

    It begins where the other one stands when it is made.
    """

    _own_seed: int | None = None
    _has_jobs_of_others = True

    #: Whether its places are those of the source, so that a state of the one is a state of the other.
    _has_places_of_source = True

    #: Its batches are those of the source, as they are.
    _passes_on = False

    def __init__(self, source_split: Any) -> None:
        check_source("source_split", source_split)
        super().__init__()
        self.source_split = source_split
        if isinstance(source_split, Sequence):
            source_split._check_open()
            self._check_follows(source_split)
            clock = Clock(source_split._clock)
            if not (self._has_places_of_source or clock.start.is_at_start):
                raise StateError(
                    f"the state that was loaded into the {type(source_split).__name__} is within an epoch, and counts "
                    f"other batches than a {type(self).__name__} of it: load it into what it was taken from"
                )
            self.__dict__["_own_clock"] = clock
            clock.owner = weakref.ref(self)

    def _check_follows(self, source: Sequence[Any]) -> None:
        if source._is_last:
            raise TypeError(
                "max_samples() is the last of a chain, but for its own .prefetch(): put what is to work on the batches "
                "before it, or work on them in the loop"
            )
        if source._is_put_together and not self._passes_on:
            raise TypeError(
                "the batches of rebatch() are put together where they are read, so only .prefetch() and .max_samples() "
                "can follow it: put what is to work on batches before it, or work on them in the loop"
            )

    @property
    def seed(self) -> int:
        """Its own, where it was given one; else the source's, if that was; else that of the chain, or a drawn one."""
        given = self._given_seeds()
        of_chain = None if given else seed_of_chain(self)
        if given or of_chain is not None:
            return given[0] if of_chain is None else of_chain
        source = self.source_split
        return source.seed if isinstance(source, Sequence) else super().seed

    @seed.setter
    def seed(self, seed: int) -> None:
        first = self.source_split
        while isinstance(first, SequenceDerived):
            first = first.source_split
        instead = f"set that of the {type(first).__name__}" if isinstance(first, Sequence) else "give seed=... there"
        raise AttributeError(f"the seed of a {type(self).__name__} is that of what it was made from: {instead}")

    def _given_seeds(self) -> list[int]:
        before = self.source_split._given_seeds() if isinstance(self.source_split, Sequence) else []
        return before if self._own_seed is None else [self._own_seed, *before]

    @property
    def is_stream(self) -> bool:  # type: ignore[override]
        """Whether the source is read in order in the consumer's process."""
        return bool(getattr(self.source_split, "is_stream", False))

    @property
    def _on_error_of_items(self) -> str:  # type: ignore[override]
        return self.source_split._on_error_of_items if isinstance(self.source_split, Sequence) else "raise"

    @property
    def _has_index(self) -> bool:  # type: ignore[override]
        return is_indexed(self.source_split)

    def on_epoch_begin(self) -> None:
        """The source's."""
        if hasattr(self.source_split, "on_epoch_begin"):
            self.source_split.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """The source's."""
        if hasattr(self.source_split, "on_epoch_end"):
            self.source_split.on_epoch_end()

    def _has_hooks(self, *names: str) -> bool:
        source = self.source_split
        return source._has_hooks(*names) if isinstance(source, Sequence) else defines_hooks(source, *names)

    def _identity(self) -> list[Any]:
        return [type(self).__qualname__, identity_of(self.source_split)]

    def _permutations(self, epoch: int) -> tuple[Permuted, ...]:
        return permutations_of(self.source_split, epoch)

    def _source_length(self) -> int:
        length: int = on_behalf_of(asking() or self._clock, len, self.source_split)
        return length

    def _is_length_at_hand(self) -> bool:
        source = self.source_split
        return not isinstance(source, Sequence) or source._is_length_at_hand()

    @property
    def _item_names(self) -> tuple[str, str]:  # type: ignore[override]
        source = self.source_split
        return source._item_names if isinstance(source, Sequence) else SequenceLooks._item_names

    def _shown_name(self) -> str:
        source = self.source_split
        name = source._shown_name() if isinstance(source, Looks) else type(source).__name__
        return f"{super()._shown_name()} of {name}"

    def _count_changes(self) -> int:
        before = self.source_split._count_changes() if isinstance(self.source_split, Sequence) else 0
        return before + super()._count_changes()

    def _share(self) -> None:
        if isinstance(self.source_split, Sequence):
            self.source_split._share()

    def _asks_for_auto(self) -> bool:
        return isinstance(self.source_split, Sequence) and self.source_split._asks_for_auto()

    def _num_workers(self) -> int:
        return self.source_split._num_workers() if isinstance(self.source_split, Sequence) else 0

    def _stop_workers(self) -> None:
        if isinstance(self.source_split, Sequence):
            self.source_split._stop_workers()

    def _check_open(self) -> None:
        super()._check_open()
        if isinstance(self.source_split, Sequence):
            self.source_split._check_open()


def identity_of(source: Any) -> list[Any]:
    """Of any source: its class, and arguments of it that can be written as JSON."""
    if isinstance(source, Sequence):
        return source._identity()
    return [source.name if isinstance(source, Counted) else type(source).__qualname__]


def jobs_of(source: Any) -> tuple[Any, tuple[Callable[[Any], Any], ...], tuple[bool, ...]]:
    """What the jobs of any source are made of: see ``Sequence._jobs``."""
    return source._jobs() if _is_transparent(source) else (source, (), ())


def job_of(source: Any, index: int, epoch: int) -> int:
    """The job that makes batch ``index`` of any source."""
    return source._job_of(index, epoch) if _is_transparent(source) else index


def job_indices_of(source: Any, indices: OrderOf[int], epoch: int) -> list[int]:
    """The jobs that make the batches of any source at ``indices``."""
    return source._jobs_of(indices, epoch) if _is_transparent(source) else list(indices)


def permutations_of(source: Any, epoch: int) -> tuple[Permuted, ...]:
    """How the places of any source are shuffled: see ``Sequence._permutations``."""
    return source._permutations(epoch) if _is_transparent(source) else ()


def _is_transparent(source: Any) -> bool:
    return isinstance(source, Sequence) and not source._is_opaque
