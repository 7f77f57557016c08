"""``Clock``: counts the epochs of a sequence, and calls its hooks (on_epoch_begin, on_epoch_end) for each epoch.

Each sequence has its own clock, and so counts its own epochs.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from workers.errors import StalePassError, StateError
from workers.frameworks import keras
from workers.job import seeding
from workers.job.task import chain_of, made_from

from .position import Position

if TYPE_CHECKING:
    from .base import Sequence


HOOKS = "on_epoch_begin", "on_epoch_end"
_Hook = TypeVar("_Hook", bound=Callable[..., Any])


def is_default(hook: _Hook) -> _Hook:
    """Mark ``hook``, an empty on_epoch_begin or on_epoch_end, so that it is never called, and return it."""
    hook._is_default = True  # type: ignore[attr-defined]
    return hook


def defines_hooks(source: Any, *names: str) -> bool:
    """Return True if the class of ``source`` defines a hook in ``names`` (default: on_epoch_begin, on_epoch_end).

    The empty defaults of Sequence and of PyDataset do not count.
    """
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
    """The clock of a sequence, which keeps its epoch and its current pass, and calls on_epoch_begin and on_epoch_end.

    A pass is one run of a loop. The current pass is the one that owns ``position``, which state_dict() saves. A clock
    is not pickled: a worker's copy of the sequence learns the epoch from each job, and any other copy starts in
    epoch 0.
    """

    def __init__(self, of: Clock | None = None) -> None:
        """Start in the epoch of ``of``, the source's clock, at its ``start``; without ``of``, start in epoch 0."""
        self.epoch: int = 0 if of is None else of.epoch
        self.start: Position = Position() if of is None else of.start.copy()  # where passes over this epoch start
        self.position = self.start  # of the current pass
        self.version = 0  # how often the epoch was set or a state was loaded
        self.is_closed = False
        self.is_fitted = False  # model.fit has read batches of this epoch
        self.num_changes = 0  # how often changed() was called
        self.bars: weakref.WeakSet[Any] = weakref.WeakSet()  # progress bars of its passes
        self.closed_with: list[Callable[[], None]] = []  # what ends with the sequence; close() calls these
        self.owner: Callable[[], Any] | None = None  # returns its sequence, held weakly
        self._announced = -1  # the last epoch for which on_epoch_begin was called
        self._changed_by = ""  # why the last pass is over, e.g. "a state was loaded"

    def __reduce__(self) -> Any:
        return Clock, ()

    def seed_for(self, part: Sequence) -> int | None:
        """Return the seed given last in this clock's chain to a sequence made from ``part``; None if none was given.

        A source of several that were given none, other than the first, has the seed of the first.
        """
        # [(a sequence, what has its seed: a sequence made from it that was given one, or that has several sources)]
        waiting: list[tuple[Any, Any]] = [] if self.owner is None else [(self.owner(), None)]
        while waiting:
            each, by = waiting.pop()
            if each is part:
                return None if by is None else by.seed if by._own_seed is None else by._own_seed
            by = each if by is None and getattr(each, "_own_seed", None) is not None else by
            first = getattr(each, "__dict__", {}).get("source_split")
            waiting += [
                (source, by if source is first or by is not None else each) for source in reversed(made_from(each))
            ]
        return None

    @property
    def is_begun(self) -> bool:
        """True if batches of the current epoch were delivered, to a loop or to ``model.fit``."""
        return self.is_fitted or self.position.delivered != self.start.delivered

    @property
    def is_underway(self) -> bool:
        """True if a pass over the current epoch has begun, or a state within the epoch was loaded."""
        return self._announced == self.epoch or not self.start.is_at_start

    def at(self, epoch: int) -> Clock:
        """Return another clock of the same sequence, with ``epoch`` as its current epoch."""
        made = Clock(self)
        made.epoch, made.owner, made._announced = epoch, self.owner, self._announced
        return made

    def set_epoch(self, epoch: int) -> None:
        """Move to the start of ``epoch``; the next loop calls on_epoch_begin. A running loop raises StalePassError."""
        start, version = Position(), self.version + 1
        # No call between these assignments, so that a Ctrl-C cannot interrupt the change half-way.
        self.epoch, self.version, self._announced, self._changed_by = epoch, version, -1, "the epoch was set"
        self.start, self.position, self.is_fitted = start, start, False

    def load(self, start: Position) -> None:
        """Move to ``start``, a loaded state's position in the current epoch. A running loop raises StalePassError."""
        version = self.version + 1
        self.version, self._changed_by = version, "a state was loaded"
        self.start, self.position, self.is_fitted = start, start, False

    def go_to(self, sequence: Sequence, epoch: int) -> None:
        """Make ``epoch`` the current one, and call the hooks of ``sequence`` for the epochs in between.

        Raises:
            StateError: only if ``sequence`` has hooks: ``epoch`` is over already, or a hook has set the epoch.
        """
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
        """Make a new pass (one run of a loop) the current one, and return its position.

        ``stride`` is the number of ranks: a batch of this rank stands for that many places of the epoch's order.
        """
        position = self.start.copy(stride)
        self._changed_by = "a newer pass over it has begun"
        self.position = position
        return position

    def begin_epoch(self, sequence: Sequence) -> None:
        """Call ``on_epoch_begin`` of ``sequence``, and tell its chain that the epoch begins; only once per epoch."""
        if self._announced != self.epoch:
            self._announced = self.epoch
            if sequence._has_hooks("on_epoch_begin"):
                self._call(sequence, seeding.EPOCH_BEGIN, sequence.on_epoch_begin)
            if self.start.is_at_start:  # else the chain was told when the state was loaded
                self.tell_chain(sequence)

    def tell_chain(self, sequence: Sequence) -> None:
        """Tell the chain of ``sequence`` that the current epoch begins, with what is set now, such as weights."""
        for each in chain_of(sequence):
            begin = getattr(type(each), "_begin_epoch", None)
            if begin is not None:
                begin(each, self.epoch)

    def end_epoch(self, sequence: Sequence) -> None:
        """Call ``on_epoch_end`` of ``sequence``, and move to the next epoch, or to the one that the hook has set."""
        version = self.version
        if sequence._has_hooks("on_epoch_end"):
            self._call(sequence, seeding.EPOCH_END, sequence.on_epoch_end)
        if self.version == version:
            epoch, start = self.epoch + 1, Position()
            self.epoch, self.start, self.position, self.is_fitted = epoch, start, start, False

    def close(self) -> None:
        """Mark the sequence as closed, so that loops over it raise ClosedError. End its exports and progress bars."""
        self.is_closed = True
        for end in list(self.closed_with):
            end()
        for bar in list(self.bars):
            bar.close()

    def _call(self, sequence: Sequence, index: int, hook: Any) -> None:
        stream = seeding.Stream(sequence.seed, None, chain_of(sequence))
        with_clock(self, seeding.run_job, stream, seeding.Job(self.epoch, index), hook)
        sequence._live.generators.look()  # find generators that the hook has made, before the loop draws from them

    def stale(self, name: str) -> StalePassError:
        """Return the error for an iterator over a sequence of class ``name`` whose pass is no longer current."""
        return StalePassError(
            f"this iterator over a {name} is over: {self._changed_by}. Give each loop its own sequence or front-end, "
            "such as another sequence.prefetch()"
        )


def with_clock(clock: Clock, ask: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``ask(*arguments)``. During the call, every sequence in this thread has the epoch of ``clock``.

    A sequence calls the hooks and ``len()`` of its sources this way, because they have clocks of their own.

    This is not a context manager, because leaving one is a call, and a Ctrl-C in that call would leave ``clock`` set.
    """
    before = _asking.clock
    try:
        _asking.clock = clock
        return ask(*arguments)
    finally:
        _asking.clock = before


def asking() -> Clock | None:
    """Return the clock of the :func:`with_clock` call that runs in this thread; None if there is none."""
    return _asking.clock


def seed_of_chain(part: Sequence) -> int | None:
    """Return the seed of the chain that this thread is computing, if ``part`` belongs to that chain; else None.

    In a job, this is the job's seed. In a call of :func:`with_clock`, it is the seed given to a later sequence in the
    clock's chain; None if none was given.
    """
    stream = seeding.current_stream()
    if stream is not None and stream.is_of(part):
        return stream.seed
    clock = asking()
    return None if clock is None else clock.seed_for(part)
