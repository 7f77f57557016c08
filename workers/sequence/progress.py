"""Progress bars, by tqdm: silent where stderr is neither a terminal nor a notebook.

tqdm is imported along with this module, so whoever makes a bar imports it then.
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

from .chain import Batch_co
from .passes import PassIterator

if TYPE_CHECKING:
    from typing_extensions import Self

    from .base import Sequence


if TYPE_CHECKING:
    _Tqdm = tqdm[Any]
else:
    _Tqdm = tqdm

DELAY_S = 1.0  # what takes less than this shows no bar


class Bar(_Tqdm):
    """A bar for what may take long. It appears when that has taken a second.

    Args:
        iterable: what to go through, or None.
        **options: of tqdm; they, and tqdm's variables of the environment, take the place of ours.
    """

    #: tqdm has no thread that looks after this bar: ``miniters=1``, so each step looks at the time itself.
    monitor_interval = 0

    def __init__(self, iterable: Iterable[Any] | None = None, **options: Any) -> None:
        ours = {"delay": DELAY_S, "disable": False if in_notebook() else None, "miniters": 1}
        ours = {name: value for name, value in ours.items() if f"TQDM_{name.upper()}" not in os.environ}
        super().__init__(iterable, **{**ours, **options})

    def refresh(self, nolock: bool = False, lock_args: Any = None) -> Any:
        """As tqdm's, which would keep the lock of all bars for ever if a Ctrl-C came while it draws."""
        if nolock or lock_args:
            return super().refresh(nolock, lock_args)
        with self.get_lock():  # type: ignore[no-untyped-call]
            return super().refresh(nolock=True)


def in_notebook() -> bool:
    """Whether this runs in the kernel of a notebook, whose stderr is shown though it is no terminal."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in shell.config


#: What may be given by name: of all options of tqdm those that are not ours to say.
_OURS = "self", "iterable", "gui", "kwargs"
_OPTIONS = [name for name in inspect.signature(std.tqdm.__init__).parameters if name not in _OURS]


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
