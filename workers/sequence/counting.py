"""Calls a function once for each sample of a sequence, in workers, for ``filter(count=True)`` and ``bucket``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workers.job.task import Loose

from .chosen import SequenceChosen
from .derived import source_length
from .selection import makers


class SequenceAnswers(SequenceChosen[Any]):
    """A sequence of ``function(sample)`` for each sample of a source, which must have one sample for each index.

    If the source is unsuitable, an error says that its samples cannot be ``done``, e.g. "filtered".
    """

    def __init__(self, source_split: Any, function: Callable[[Any], Any], done: str) -> None:
        self._function, self._done = function, done
        super().__init__(source_split, done)

    def __len__(self) -> int:
        """Return the number of samples."""
        return source_length(self)

    def _source_places(self, jobs: Any) -> None:
        """Return None, so that no samples are fetched by their places in the source, bypassing ``function``."""

    def _items_of_job(self, index: int) -> list[Any]:
        items = self._source().items(index)
        if len(items) != 1 or isinstance(items[0], Loose):
            raise TypeError(
                f"sample {index} is not one sample, but {len(items)}, because a function before returns lists, or "
                f"failed samples are skipped; so its samples cannot be {self._done} by a count: do this before that "
                "function, or give it as_items=False"
            )
        return [self._function(items[0])]

    @property
    def _has_lists(self) -> bool:
        return False

    def on_epoch_begin(self) -> None:
        """Do nothing: the source's hooks are for epochs of the user's loop, and this pass is not one of them."""

    def on_epoch_end(self) -> None:
        """Do nothing, for the same reason as :meth:`on_epoch_begin`."""


def answers_of(source: Any, function: Callable[[Any], Any], done: str, what: str) -> list[Any]:
    """Return [``function(sample)`` for each sample of ``source``], computed in worker processes, with a progress bar.

    Args:
        done: what the error says cannot be done to an unsuitable source, e.g. "filtered".
        what: the title of the progress bar.

    Raises:
        TypeError: ``source`` has no indices, its order changes, or an index has no sample or several. Any error that
            ``function`` raises is raised too.
    """
    answers = SequenceAnswers(source, function, done)
    with makers["prefetch"](answers, on_error="raise") as front, front.progress(desc=what, leave=False) as bar:
        return list(bar)
