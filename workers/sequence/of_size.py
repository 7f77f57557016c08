"""What sequences have in common whose batches are of a size that the user gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workers.checks import check_choice, check_function, check_int
from workers.for_keras.reading import ENDLESS

from .base import Sequence
from .derived import SequenceDerived


def check_discard(discard_batch_not_full: Any) -> bool:
    """``discard_batch_not_full``, which must be a bool."""
    return bool(check_choice("discard_batch_not_full", discard_batch_not_full, (True, False)))


class SequenceOfSize(SequenceDerived[Any]):
    """Batches of ``batch_size`` samples of another sequence.

    Args:
        source_split: the other one.
        batch_size: how many samples are in a batch.
        discard_batch_not_full: leave out the last batch where samples are missing for it.
        collate_fn: what makes a batch of the list of what it is made of; None: it is stacked or joined.
    """

    _has_places_of_source = False

    #: What becomes of samples that raise: see ``_on_error_of_items``. Batches are filled from what follows; with
    #: ``collate_fn``, which runs in the workers, they have fewer samples. None: as the source has it.
    on_error_of_samples: str | None = None

    def __init__(
        self,
        source_split: Any,
        batch_size: int,
        discard_batch_not_full: bool = False,
        collate_fn: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        self.batch_size = check_int("batch_size", batch_size, 1)
        self.discard_batch_not_full = check_discard(discard_batch_not_full)
        self.collate_fn = check_function("collate_fn", collate_fn)
        super().__init__(source_split)
        self._check_source()

    def _check_source(self) -> None:
        """Raise a TypeError if no batches can be made of it."""

    def _on_error(self) -> str:
        source = self.source_split
        return self.on_error_of_samples or (source._on_error_of_items if isinstance(source, Sequence) else "raise")

    def _num_batches(self) -> int:
        """Of all samples of the source."""
        samples = self._source_length()
        if samples >= ENDLESS:
            return samples
        return samples // self.batch_size if self.discard_batch_not_full else -(-samples // self.batch_size)

    def _identity(self) -> list[Any]:
        return [*super()._identity(), self.batch_size, self.discard_batch_not_full]
