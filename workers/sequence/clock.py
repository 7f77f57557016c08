"""The epoch of a sequence, and the hooks that are called for it.

Each sequence and front-end that is iterated has a clock of its own.
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
    """Mark a hook that does nothing, so that it need not be called."""
    hook._is_default = True  # type: ignore[attr-defined]
    return hook


def defines_hooks(source: Any, *names: str) -> bool:
    """Whether the class of ``source`` defines these hooks, or any, itself."""
    source = source.dataset if isinstance(source, keras.Counted) else source
    methods = [getattr(type(source), name, None) for name in names or HOOKS]
    return any(
        method is not None
        and not hasattr(method, "_is_default")
        and method.__module__.partition(".")[0] != keras.PACKAGE  # PyDataset's own
        for method in methods
    )


def has_hooks(sequence: Any, origin: Any, names: tuple[str, ...]) -> bool:
    """Whether these hooks, or any, are called for the epochs of ``sequence``: those of what it begins with."""
    if origin is not sequence and hasattr(type(origin), "_has_hooks"):
        return bool(origin._has_hooks(*names))
    return defines_hooks(origin, *names)


class _Asking(threading.local):
    clock: Clock | None = None


_asking = _Asking()


class Clock:
    """The epoch, the hooks called for it, and the pass that counts.

    A pass is the current one for as long as ``position`` is its own. Not part of what is pickled: a replica learns its
    epoch from each job, and a copy of a sequence begins anew.
    """

    def __init__(self, of: Clock | None = None) -> None:
        """``of``: the clock of what this one's sequence is made from; it begins where that one stands."""
        self.epoch: int = 0 if of is None else of.epoch
        self.start: Position = Position() if of is None else of.start.copy()  # where passes over this epoch begin
        self.position = self.start  # of the current pass
        self.version = 0  # how often the epoch was set, or a state loaded
        self.is_closed = False
        self.is_fitted = False  # model.fit has read of this epoch
        self.num_changes = 0  # how often changed() was called
        self.bars: weakref.WeakSet[Any] = weakref.WeakSet()  # that show how a pass goes
        self.owner: Callable[[], Any] | None = None  # the sequence that it is of, held weakly
        self._announced = -1  # the last epoch for which on_epoch_begin was called
        self._changed_by = ""  # what has ended the last pass

    def __reduce__(self) -> Any:
        return Clock, ()

    def seed_for(self, part: Sequence) -> int | None:
        """The seed that was given to the end of the chain that ``part`` belongs to, or last before it; None: none."""
        given = None
        for each in () if self.owner is None else chain_of(self.owner()):
            if each is part:
                return given
            given = getattr(each, "_own_seed", None) if given is None else given
        return None

    @property
    def is_begun(self) -> bool:
        """Something of this epoch was delivered."""
        return self.is_fitted or self.position.delivered != self.start.delivered

    def set_epoch(self, epoch: int) -> None:
        """Stand at the beginning of ``epoch``, for which on_epoch_begin will be called. The current pass is over."""
        start, version = Position(), self.version + 1
        # Without a call in between, so that no Ctrl-C finds it half changed.
        self.epoch, self.version, self._announced, self._changed_by = epoch, version, -1, "the epoch was set"
        self.start, self.position, self.is_fitted = start, start, False

    def load(self, start: Position) -> None:
        """Stand at ``start`` of the current epoch. The current pass is over."""
        version = self.version + 1
        self.version, self._changed_by = version, "a state was loaded"
        self.start, self.position, self.is_fitted = start, start, False

    def go_to(self, sequence: Sequence, epoch: int) -> None:
        """Make ``epoch`` the current one, calling the hooks of those in between."""
        if sequence._has_hooks():
            if epoch < self.epoch:
                raise StateError(
                    f"the state is of epoch {epoch}, and on_epoch_end was called for later ones: "
                    f"load it into a new {type(sequence).__name__}"
                )
            while (here := self.epoch) < epoch:
                self.begin_epoch(sequence)
                self.end_epoch(sequence)
                if self.epoch != here + 1:
                    raise StateError("on_epoch_begin or on_epoch_end has set the epoch on the way to the state's")
        self.epoch = epoch

    def begin_pass(self, stride: int) -> Position:
        """The position of a pass that begins now, and is the current one from here on."""
        position = self.start.copy(stride)
        self._changed_by = "a newer pass over it has begun"
        self.position = position
        return position

    def begin_epoch(self, sequence: Sequence) -> None:
        """Call ``on_epoch_begin``, unless it was for this epoch."""
        if self._announced != self.epoch:
            self._announced = self.epoch
            if sequence._has_hooks("on_epoch_begin"):
                self._call(sequence, seeding.EPOCH_BEGIN, sequence.on_epoch_begin)

    def end_epoch(self, sequence: Sequence) -> None:
        """Call ``on_epoch_end``, and go on to the next epoch, or where the hook says."""
        version = self.version
        if sequence._has_hooks("on_epoch_end"):
            self._call(sequence, seeding.EPOCH_END, sequence.on_epoch_end)
        if self.version == version:
            epoch, start = self.epoch + 1, Position()
            self.epoch, self.start, self.position, self.is_fitted = epoch, start, start, False

    def close(self) -> None:
        """There is no more to be had: bars end too."""
        self.is_closed = True
        for bar in list(self.bars):
            bar.close()

    def _call(self, sequence: Sequence, index: int, hook: Any) -> None:
        stream = seeding.Stream(sequence.seed, None, chain_of(sequence))
        with_clock(self, seeding.run_job, stream, seeding.Job(self.epoch, index), hook)
        sequence._live.generators.look()  # what the hook has made, before the loop can draw from it

    def stale(self, name: str) -> StalePassError:
        """The error of who reads on in a pass over a ``name`` that is not the current one."""
        return StalePassError(
            f"this iterator over a {name} is over: {self._changed_by}. Each loop needs a sequence or front-end of "
            "its own, such as another sequence.prefetch()"
        )


def with_clock(clock: Clock, ask: Callable[..., Any], *arguments: Any) -> Any:
    """``ask(*arguments)``, in which a sequence that is asked for its epoch in this thread names that of ``clock``, and
    not its own: for what an iterated sequence asks of those that it is made from, their hooks and their length.

    No ``with``, whose end is a call: a Ctrl-C in it would leave the clock behind.
    """
    before = _asking.clock
    try:
        _asking.clock = clock
        return ask(*arguments)
    finally:
        _asking.clock = before


def asking() -> Clock | None:
    """The clock on behalf of which this thread asks; None: nobody's."""
    return _asking.clock


def seed_of_chain(part: Sequence) -> int | None:
    """The seed of the chain in whose job, or on whose behalf, ``part`` of it is asked for its own; None: that was not
    given, or there is no such chain."""
    stream = seeding.current_stream()
    if stream is not None and stream.is_of(part):
        return stream.seed
    clock = asking()
    return None if clock is None else clock.seed_for(part)
