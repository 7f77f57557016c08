"""Measures how fast a loop would be if data were free: a front-end that delivers one batch again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workers.checks import check_int
from workers.sequence.base import Sequence
from workers.sequence.display import DisplayedFact, count

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .sequence_map import SequenceMap


class FreeData(Sequence[Any]):
    """A sequence of ``num_batches`` batches that are all the same object, ``batch``."""

    _makes_fresh_batches = True  # so they are not copied

    def __init__(self, batch: Any, num_batches: int) -> None:
        super().__init__(seed=0)
        self.only, self.size = batch, num_batches

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        return self.only

    def _shown_facts(self) -> Iterable[DisplayedFact]:
        yield count(self.size, "batch", "batches")


def free(self: SequenceMap[Any], batch: Any = None, length: int | None = None) -> SequenceMap[Any]:
    """Return a front-end that delivers one batch again and again: how fast would training be if data were free?

    Train with both, each for at least eight batches. Then both have a ``report()`` that says what the loader costs, in
    per cent of an epoch. That is the most that a faster loader could save.

    The batches are one object, so what the training writes into it stays there.

    Args:
        batch: the batch. By default it is batch 0, computed now, in this process.
        length: the number of batches in an epoch; by default as many as here.

    Raises:
        TypeError: this has no index or no length, or a job may deliver several batches, so ``batch`` or ``length`` must
            be given. IndexError: there are no batches. Any error of the batch.

    Example:
        >>> with workers.prefetch([np.zeros(4)] * 100, nb_workers=2) as batches:
        ...     free = batches.free()
        ...     for data in (batches, free):
        ...         for batch in data:
        ...             time.sleep(0.002)  # the training step
        ...     report = batches.report()
        >>> 0 <= report.cost <= 1
        True
    """
    length = None if length is None else check_int("length", length, 1)
    if batch is None:
        try:
            if self._has_lists:
                raise TypeError("a job may deliver any number of batches")
            batch = self[0]
        except TypeError as error:
            raise TypeError(
                f"free() computes batch 0, but this cannot be read by index ({error}): write free(batch) with a batch "
                "that the loop has delivered"
            ) from error
    try:
        length = len(self) if length is None else length
    except TypeError as error:
        raise TypeError(f"the number of batches is unknown ({error}): write free(batch, length=...)") from error
    made: SequenceMap[Any] = FreeData(batch, length).prefetch(0)
    made._output = made._live.output = self._output
    made._live.figures.loop.paid, self._live.figures.loop.free = self._live.figures.loop, made._live.figures.loop
    return made
