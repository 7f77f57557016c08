"""``SequenceMaxSamples``: a sequence whose loops each read about ``max_samples`` samples, regardless of its epochs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from workers.batch.stacking import length_of_first
from workers.checks import check_int, short
from workers.errors import StateError

from .base import Sequence, plan_of
from .chain import NbWorkers
from .clock import Clock
from .derived import SequenceDerived
from .live import Live
from .plan import Plan
from .selection import makers

if TYPE_CHECKING:
    from typing_extensions import Self


class SequenceMaxSamples(SequenceDerived[Any]):
    """Another sequence, read in passes (runs of a loop) of ``max_samples`` samples: see :meth:`Sequence.max_samples`.

    Each pass continues where the last one ended, if need be in the next epoch of the source. ``epoch`` is the source's.
    """

    def __init__(self, source_split: Sequence[Any], max_samples: int) -> None:
        self._max_samples = check_int("max_samples", max_samples, 1)
        source_split._check_open()
        super().__init__(makers["map"](source_split, 0))  # its own front-end, with the source's workers
        self._begin()

    def _begin(self, num_samples: int = 0) -> None:
        self._num_samples = num_samples  # samples delivered in the current pass
        self._resumes = bool(num_samples)  # the next pass is the rest of an interrupted one
        self._number = 0  # the number of the current pass
        self._batches: Iterator[Any] | None = None  # over one epoch of the source; kept from pass to pass
        self._version = self._clock.version

    def _make_live(self, clock: Clock | None = None) -> Live:
        live: Live = self.source_split._live
        return live

    def __len__(self) -> int:
        raise TypeError("max_samples() has no length: how many batches are in a pass is known only when it was read")

    def __getitem__(self, index: int) -> Any:
        raise TypeError("max_samples() has no index, because each pass continues the last one: use for batch in ...")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_batches": None, "_num_samples": 0, "_resumes": False}

    def _plan(self) -> Plan:
        return plan_of(self.source_split).limited()

    def prefetch(self, nb_workers: NbWorkers | None = "auto", max_queue_size: int | None = None, **kwargs: Any) -> Any:
        """Return this sequence with workers that compute batches ahead of the loop: see :meth:`Sequence.prefetch`."""
        return type(self)(self.source_split.prefetch(nb_workers, max_queue_size, **kwargs), self._max_samples)

    # -- loops

    def __iter__(self) -> Iterator[Any]:
        """Start a pass where the last one ended, and return an iterator over its batches."""
        self._check_open()
        if self._version != self._clock.version:  # the epoch was set, or a state was loaded
            self._begin()
        if not self._resumes:
            self._num_samples = 0
        self._resumes = False
        self._number += 1
        return _Limited(self, self._number)

    def _next(self) -> Any:
        """Return the next batch of the current pass. Batches without samples are left out.

        Raises:
            StopIteration: the pass has enough samples, or a whole epoch of the source had no samples.
        """
        num_ends = 0
        while self._num_samples < self._max_samples and num_ends < 2:
            if self._batches is None:
                self._batches = iter(self.source_split)
            try:
                batch = next(self._batches)
            except StopIteration:
                self._batches = None
                num_ends += 1
                continue
            count = length_of_first(batch)
            if count:
                self._num_samples += count
                return batch
        self._num_samples = 0
        raise StopIteration

    # -- states, and the end

    def state_dict(self) -> dict[str, Any]:
        """Return the position as plain JSON: the source's state, and the number of samples delivered in this pass."""
        source = self.source_split.state_dict()
        is_over = self._num_samples >= self._max_samples
        return {"max_samples": self._max_samples, "samples": 0 if is_over else self._num_samples, "source": source}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume where ``state_dict`` was taken: the next pass is the rest of the one that was interrupted.

        Raises:
            TypeError, StateError: this is not a state, or is that of another sequence, ``max_samples``, length or seed.
        """
        if not isinstance(state_dict, dict):
            raise TypeError(f"state must be a dict, as state_dict() returns it, not {short(state_dict)}")
        samples = state_dict.get("samples")
        if set(state_dict) != {"max_samples", "samples", "source"} or type(samples) is not int:
            raise StateError(f"state must be of a SequenceMaxSamples, not {short(state_dict)}")
        if state_dict["max_samples"] != self._max_samples or not 0 <= samples < self._max_samples:
            raise StateError(
                f"state is at sample {short(samples)} of a pass with max_samples={short(state_dict['max_samples'])}, "
                f"but this sequence has max_samples={self._max_samples}"
            )
        self.source_split.load_state_dict(state_dict["source"])
        number = self._number + 1
        self._begin(samples)
        self._number = number

    def close(self) -> None:
        """Stop the workers of the source. May be called again; later loops raise ClosedError."""
        self.source_split.close()


class _Limited:
    """The iterator over one pass of a SequenceMaxSamples. It raises StalePassError once a newer pass has begun."""

    def __init__(self, of: SequenceMaxSamples, number: int) -> None:
        self._of = of
        self._number = number
        self._is_over = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        of = self._of
        of._check_open()
        if self._is_over:
            raise StopIteration
        if of._number != self._number:
            raise of._clock.stale(type(of).__name__)
        try:
            return of._next()
        except StopIteration:
            self._is_over = True
            raise
