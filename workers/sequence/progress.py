"""Draws progress bars for loops over sequences, by tqdm, and only if stderr is a terminal or a notebook.

This module imports tqdm, so it is imported only when a bar is made.
"""

from __future__ import annotations

import inspect
import os
import sys
import weakref
from collections.abc import Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, Generic

from tqdm import std
from tqdm.auto import tqdm

from workers.checks import short
from workers.errors import ClosedError, StalePassError

from .passes import PassIterator
from .selection import Batch_co

if TYPE_CHECKING:
    from typing_extensions import Self

    from .base import Sequence


if TYPE_CHECKING:
    _Tqdm = tqdm[Any]
else:
    _Tqdm = tqdm

DELAY_S = 1.0  # for shorter work, no bar is shown


class Bar(_Tqdm):
    """A tqdm progress bar for work that may take long; it appears after one second.

    Args:
        iterable: what to iterate over; None if the caller moves the bar by ``update``.
        **options: tqdm's options. They, and tqdm's environment variables, override our defaults.
    """

    #: 0, so that tqdm starts no monitor thread for this bar. With ``miniters=1``, each step checks the time itself.
    monitor_interval = 0

    def __init__(self, iterable: Iterable[Any] | None = None, **options: Any) -> None:
        ours = {"delay": DELAY_S, "disable": False if in_notebook() else None, "miniters": 1}
        ours = {name: value for name, value in ours.items() if f"TQDM_{name.upper()}" not in os.environ}
        super().__init__(iterable, **{**ours, **options})

    def refresh(self, nolock: bool = False, lock_args: Any = None) -> Any:
        """Redraw the bar. In tqdm's own method, a Ctrl-C while it draws would leave the lock of all bars locked."""
        if nolock or lock_args:
            return super().refresh(nolock, lock_args)
        with self.get_lock():  # type: ignore[no-untyped-call]
            return super().refresh(nolock=True)


def in_notebook() -> bool:
    """Return True if this process is a notebook's kernel, whose stderr is shown although it is not a terminal."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in shell.config


#: The options that users may give: all of tqdm's, except those that we set.
_OURS = "self", "iterable", "gui", "kwargs"
_OPTIONS = [name for name in inspect.signature(std.tqdm.__init__).parameters if name not in _OURS]


class Progress(Bar, Generic[Batch_co]):
    """The iterator of one loop over a sequence and, at the same time, its progress bar, with the methods of tqdm.

    The bar counts what ``len()`` counts, by the position in the epoch: a batch that is skipped or raises counts too,
    and a list that a function returns counts once. Without a length, the bar counts delivered batches. A batch is
    counted when the loop asks for the next one, so that a Ctrl-C while the bar is drawn loses no batch.

    Raises:
        TypeError: tqdm has no such option; the error names the options that it has.
    """

    def __init__(self, of: Sequence[Batch_co], options: dict[str, Any]) -> None:
        _check(options)
        self._of = of
        self._iterator = iter(of)
        self._pass = self._iterator._pass if isinstance(self._iterator, PassIterator) else None
        self._num_asked = 0  # how often the loop has asked for a batch
        self._weakly = weakref.ref(self)
        bars = of._clock.bars
        for bar in list(bars):  # bars of earlier passes, which this one has ended
            bar.close()
        bars.add(self)
        length = _length(of)
        if length is None:
            self._pass = None
        ours = {"total": length, "initial": self._num_delivered(), "unit": f" {of._item_names[1]}", "delay": 0.0}
        super().__init__(None, **{**ours, **options})
        self._offset = self.n - self._num_delivered()  # difference between the user's ``initial`` and ours

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
        del self  # else the traceback of a job's error would keep the bar alive, and its line on the terminal
        try:
            return iterator.__next__()  # not next(iterator), after which a Ctrl-C could lose the batch
        except (StopIteration, ClosedError, StalePassError):
            if (bar := weakly()) is not None:
                bar._end()
            del bar
            raise

    def _count(self) -> None:
        """Move the bar to the number of delivered batches; tqdm redraws it if due. A Ctrl-C in here loses no batch."""
        self.update(self._num_delivered() + self._offset - self.n)

    def _end(self) -> None:
        """Move the bar to the final number of delivered batches and close it, as the loop has ended."""
        self._num_asked -= 1  # the last request got no batch
        self._count()
        self.close()

    @property
    def format_dict(self) -> MutableMapping[str, Any]:
        """The values that tqdm draws the bar from, including the share of time that the loop has waited for batches."""
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
                f"progress() has no option {name}={short(value)}; it has these options of tqdm: {', '.join(_OPTIONS)}"
            )


def _length(of: Sequence[Any]) -> int | None:
    try:
        return len(of)
    except (TypeError, AttributeError):  # the same errors that tqdm ignores
        return None
