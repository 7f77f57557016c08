"""A pass with a progress bar: see :meth:`workers.Sequence.progress`. Imports tqdm."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Generic

from tqdm.std import tqdm

from workers.bars import Bar
from workers.checks import short
from workers.errors import ClosedError, StalePassError

from .chain import Batch_co
from .passes import PassIterator

if TYPE_CHECKING:
    from typing_extensions import Self

    from .base import Sequence

#: What may be given by name: of all options of tqdm those that are not ours to say.
_OURS = "self", "iterable", "gui", "kwargs"
_OPTIONS = [name for name in inspect.signature(tqdm.__init__).parameters if name not in _OURS]


class Progress(Bar, Generic[Batch_co]):
    """An iterator over one pass of a sequence, which is a bar too: ``set_postfix(loss=...)`` and the like are tqdm's.

    It counts what ``len()`` of the sequence does, by the position in the epoch: so a batch that is skipped, or that
    raises, counts too, and a list of a function counts once. Where there is no length it counts what was delivered.
    What the loop works on is counted when it asks for the next: a Ctrl-C while the bar is drawn costs no batch.

    Raises:
        TypeError: an option is none of tqdm's; names those that are.
    """

    def __init__(self, of: Sequence[Batch_co], options: dict[str, Any]) -> None:
        _check(options)
        self._of = of
        self._iterator = iter(of)
        self._pass = self._iterator._pass if isinstance(self._iterator, PassIterator) else None
        self._num_asked = 0  # for a batch
        self._weakly = weakref.ref(self)
        bars = of._clock.bars
        for bar in list(bars):  # of passes that this one has ended
            bar.close()
        bars.add(self)
        length = _length(of)
        if length is None:
            self._pass = None
        ours = {"total": length, "initial": self._num_delivered(), "unit": f" {of._item_names[1]}", "delay": 0.0}
        super().__init__(None, **{**ours, **options})
        self._offset = self.n - self._num_delivered()  # what ``initial`` says

    def _num_delivered(self) -> int:
        return self._num_asked if self._pass is None else self._pass.position.num_delivered

    def __iter__(self) -> Self:
        return self

    def __bool__(self) -> bool:
        return True

    def __next__(self) -> Batch_co:
        if not self.disable:
            self._count()
        self._num_asked += 1
        iterator, weakly = self._iterator, self._weakly
        del self  # else the traceback of what a job raises would hold the bar, and with it the line that it has
        try:
            return iterator.__next__()  # not next(iterator), behind which a Ctrl-C would lose the batch
        except (StopIteration, ClosedError, StalePassError):
            if (bar := weakly()) is not None:
                bar._end()
            del bar
            raise

    def _count(self) -> None:
        """Note what was delivered; tqdm draws it if it is time to. A Ctrl-C in between changes nothing."""
        self.update(self._num_delivered() + self._offset - self.n)

    def _end(self) -> None:
        """Nothing more comes."""
        self._num_asked -= 1  # in vain
        self._count()
        self.close()

    @property
    def format_dict(self) -> MutableMapping[str, Any]:
        """What tqdm draws the bar of, and how long the loop waits: asked for only when it is drawn."""
        told = super().format_dict
        share = self._of._live.share_waited()
        if share is not None:
            waits = f"waits {100 * share:.0f} %"
            told["postfix"] = f"{told['postfix']}, {waits}" if told["postfix"] else waits
        return told


def _check(options: dict[str, Any]) -> None:
    for name, value in options.items():
        if name not in _OPTIONS:
            raise TypeError(
                f"progress() was given {name}={short(value)}; allowed are these options of tqdm: {', '.join(_OPTIONS)}"
            )


def _length(of: Sequence[Any]) -> int | None:
    try:
        return len(of)
    except (TypeError, AttributeError):  # as tqdm has it
        return None
