"""The clock of a sequence: its epoch, and the hooks that are called for each epoch.

Each sequence and front-end that is iterated has its own clock.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from workers.errors import StalePassError, StateError
from workers.frameworks import keras
from workers.job import seeding
from workers.job.task import chain_of

from .position import Position

if TYPE_CHECKING:
    from .base import Sequence


HOOKS = "on_epoch_begin", "on_epoch_end"
_Hook = TypeVar("_Hook", bound=Callable[..., Any])


def is_default(hook: _Hook) -> _Hook:
    """Mark a hook that does nothing, so that it is not called."""
    hook._is_default = True  # type: ignore[attr-defined]
    return hook


def defines_hooks(source: Any, *names: str) -> bool:
    """Return True if the class of ``source`` defines one of the hooks ``names`` (default: any hook)."""
    source = source.dataset if isinstance(source, keras.Counted) else source
    methods = [getattr(type(source), name, None) for name in names or HOOKS]
    return any(
        method is not None
        and not hasattr(method, "_is_default")
        and method.__module__.partition(".")[0] != keras.PACKAGE  # PyDataset's own
        for method in methods
    )


def has_hooks(sequence: Any, origin: Any, names: tuple[str, ...]) -> bool:
    """Return True if ``origin``, the start of ``sequence``'s chain, has one of the hooks ``names`` (default: any)."""
    if origin is not sequence and hasattr(type(origin), "_has_hooks"):
        return bool(origin._has_hooks(*names))
    return defines_hooks(origin, *names)


class _Asking(threading.local):
    clock: Clock | None = None


_asking = _Asking()


class Clock:
    """The epoch, the hooks called for it, and the current pass, whose position states report.

    A pass is the current one while ``position`` is its position. A clock is not pickled: a replica learns its epoch
    from each job, and a copy of a sequence starts anew.
    """

    def __init__(self, of: Clock | None = None) -> None:
        """``of``: the clock of the sequence that this one's was made from. The new clock starts at its position."""
        self.epoch: int = 0 if of is None else of.epoch
        self.start: Position = Position() if of is None else of.start.copy()  # where passes over this epoch start
        self.position = self.start  # of the current pass
        self.version = 0  # how often the epoch was set or a state loaded
        self.is_closed = False
        self.is_fitted = False  # model.fit has read batches of this epoch
        self.num_changes = 0  # how often changed() was called
        self.bars: weakref.WeakSet[Any] = weakref.WeakSet()  # progress bars of its passes
        self.owner: Callable[[], Any] | None = None  # returns its sequence, held weakly
        self._announced = -1  # the last epoch for which on_epoch_begin was called
        self._changed_by = ""  # why the last pass is over, e.g. "a state was loaded"

    def __reduce__(self) -> Any:
        return Clock, ()

    def seed_for(self, part: Sequence) -> int | None:
        """Return the seed that was given last in the chain after ``part``. None: no such seed."""
        given = None
        for each in () if self.owner is None else chain_of(self.owner()):
            if each is part:
                return given
            given = getattr(each, "_own_seed", None) if given is None else given
        return None

    @property
    def is_begun(self) -> bool:
        """True if batches of this epoch were delivered."""
        return self.is_fitted or self.position.delivered != self.start.delivered

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of ``epoch``, whose on_epoch_begin will be called. The current pass is over."""
        start, version = Position(), self.version + 1
        # No call in between, so that a Ctrl-C cannot interrupt the change half-way.
        self.epoch, self.version, self._announced, self._changed_by = epoch, version, -1, "the epoch was set"
        self.start, self.position, self.is_fitted = start, start, False

    def load(self, start: Position) -> None:
        """Go to ``start`` in the current epoch. The current pass is over."""
        version = self.version + 1
        self.version, self._changed_by = version, "a state was loaded"
        self.start, self.position, self.is_fitted = start, start, False

    def go_to(self, sequence: Sequence, epoch: int) -> None:
        """Make ``epoch`` the current one, and call the hooks of the epochs in between."""
        if sequence._has_hooks():
            if epoch < self.epoch:
                raise StateError(
                    f"the state is of epoch {epoch}, but on_epoch_end was already called for later epochs: "
                    f"load it into a new {type(sequence).__name__}"
                )
            while (here := self.epoch) < epoch:
                self.begin_epoch(sequence)
                self.end_epoch(sequence)
                if self.epoch != here + 1:
                    raise StateError("on_epoch_begin or on_epoch_end has set the epoch on the way to the state's epoch")
        self.epoch = epoch

    def begin_pass(self, stride: int) -> Position:
        """Start a pass, which becomes the current one, and return its position."""
        position = self.start.copy(stride)
        self._changed_by = "a newer pass over it has begun"
        self.position = position
        return position

    def begin_epoch(self, sequence: Sequence) -> None:
        """Call ``on_epoch_begin``, unless it was called for this epoch already."""
        if self._announced != self.epoch:
            self._announced = self.epoch
            if sequence._has_hooks("on_epoch_begin"):
                self._call(sequence, seeding.EPOCH_BEGIN, sequence.on_epoch_begin)

    def end_epoch(self, sequence: Sequence) -> None:
        """Call ``on_epoch_end``, and go to the next epoch, or to the one that the hook has set."""
        version = self.version
        if sequence._has_hooks("on_epoch_end"):
            self._call(sequence, seeding.EPOCH_END, sequence.on_epoch_end)
        if self.version == version:
            epoch, start = self.epoch + 1, Position()
            self.epoch, self.start, self.position, self.is_fitted = epoch, start, start, False

    def close(self) -> None:
        """End all passes and their progress bars."""
        self.is_closed = True
        for bar in list(self.bars):
            bar.close()

    def _call(self, sequence: Sequence, index: int, hook: Any) -> None:
        stream = seeding.Stream(sequence.seed, None, chain_of(sequence))
        with_clock(self, seeding.run_job, stream, seeding.Job(self.epoch, index), hook)
        sequence._live.generators.look()  # find what the hook has made, before the loop can draw from it

    def stale(self, name: str) -> StalePassError:
        """Return the StalePassError for an iterator over a ``name`` whose pass is no longer the current one."""
        return StalePassError(
            f"this iterator over a {name} is over: {self._changed_by}. Give each loop its own sequence or front-end, "
            "such as another sequence.prefetch()"
        )


def with_clock(clock: Clock, ask: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``ask(*arguments)``. During the call, ``sequence.epoch`` in this thread is the epoch of ``clock``.

    An iterated sequence uses it to call the hooks and ``len()`` of the sequences that it was made from.

    This is not a context manager: leaving one is a call, and a Ctrl-C in that call would leave the clock set.
    """
    before = _asking.clock
    try:
        _asking.clock = clock
        return ask(*arguments)
    finally:
        _asking.clock = before


def asking() -> Clock | None:
    """Return the clock that :func:`with_clock` has set in this thread. None: there is none."""
    return _asking.clock


def seed_of_chain(part: Sequence) -> int | None:
    """Return the seed of the chain that ``part`` belongs to: the running job's, or else that of :func:`with_clock`.

    None: the chain was not given one, or there is no such chain.
    """
    stream = seeding.current_stream()
    if stream is not None and stream.is_of(part):
        return stream.seed
    clock = asking()
    return None if clock is None else clock.seed_for(part)
