"""The questions that every kind of sequence answers about itself, so that nobody has to ask what kind it is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from collections.abc import Sequence as OrderOf
from typing import Any, TypeVar

from workers.errors import StateError
from workers.for_keras.endless import Counted
from workers.job.task import Loose

from .chain import _makers
from .clock import asking, on_behalf_of
from .order import Permuted
from .passes import Groups
from .position import Position

HOOKS = "on_epoch_begin", "on_epoch_end"
_Hook = TypeVar("_Hook", bound=Callable[..., Any])


def is_default(hook: _Hook) -> _Hook:
    """Mark a hook that does nothing, so that it need not be called."""
    hook._is_default = True  # type: ignore[attr-defined]
    return hook


def defines_hooks(source: Any, *names: str) -> bool:
    """Whether the class of ``source`` defines these hooks, or any, itself."""
    source = source.dataset if isinstance(source, Counted) else source
    methods = [getattr(type(source), name, None) for name in names or HOOKS]
    return any(
        method is not None
        and not hasattr(method, "_is_default")
        and method.__module__.partition(".")[0] != "keras"  # PyDataset's own
        for method in methods
    )


class Answers:
    """The answers of a sequence that is made from no other one. To be overridden where they are others."""

    @abstractmethod
    def __len__(self: Any) -> int:
        """Batches in an epoch."""
        length: int | None = self._length_by_num_batches()
        if length is None:
            raise NotImplementedError(f"{type(self).__name__} must define __len__")
        return length

    #: Its batches are read in order in the consumer's process, and sent to workers. They are in random order already,
    #: so ``model.fit`` is given them as they come, whatever its ``shuffle``.
    is_stream = False

    #: What becomes of an item that raises where batches are made of its items: "raise", "skip", or "ask" the consumer.
    _on_error_of_items = "raise"

    #: Whether its batches can be asked for by index. If not, they come in a loop only.
    _has_index = True

    #: How many places of the epoch each batch stands for that it delivers.
    _stride = 1

    def _identity(self) -> list[Any]:
        """Its class, and what of its arguments tells it from others, as JSON."""
        return [type(self).__qualname__]

    def _jobs(self) -> tuple[Any, tuple[Callable[[Any], Any], ...], tuple[bool, ...]]:
        """What its jobs are made of: a source, functions, and which of them return lists of items. See ``Task``."""
        return self, (), ()

    #: Whether :meth:`_job_of` is to be asked.
    _has_jobs_of_others = False

    def _job_of(self, index: int, epoch: int) -> int:
        """The job that makes its batch ``index`` of ``epoch``: its draws are those of that job."""
        return index

    def _jobs_of(self, indices: OrderOf[int], epoch: int) -> list[int]:
        """The same for several batches."""
        return [self._job_of(index, epoch) for index in indices]

    def _job_at(self: Any, index: int, epoch: int | None = None) -> int:
        """The job that makes batch ``index`` of ``epoch``; None: of the current one."""
        clock = asking() or self._clock
        job: int = on_behalf_of(clock, lambda: self._job_of(index, self.epoch if epoch is None else epoch))
        return job

    def _given_seeds(self) -> list[int]:
        """The seeds that were given along the chain, its end first."""
        given = self.__dict__.get("_given_seed")
        return [] if given is None else [given]

    #: Whether there is more to its batches than its jobs: who works on them has to ask for its items.
    _is_opaque = False

    #: Its batches are put together where they are read: no function of a worker can have them.
    _is_put_together = False

    #: Nothing can be made of it but loops.
    _is_last = False

    def _permutations(self, epoch: int) -> tuple[Permuted, ...]:
        """How the places of ``epoch`` are shuffled, from the end of the chain to its source."""
        return ()

    def _places(self, position: Position) -> OrderOf[int] | None:
        """The places of the epoch that are left to it at ``position``; None: that is not known."""
        if position.delivered.partial:
            raise StateError(
                "the state was taken within the list of a function; only a map with that function can go on"
            )
        return position.left(len(self))

    def _length_of_epoch(self) -> int | None:
        """How many places an epoch has; None: that is not known."""
        return len(self)

    #: Whether an epoch has as many places as its length says. Of an iterable, what comes counts.
    _is_length_exact = True

    def _is_length_at_hand(self) -> bool:
        """Whether ``len()`` of it runs no function of the user's but ``__len__``."""
        return True

    def _is_at_end(self, batch: int) -> bool:
        """Whether an epoch is over when all before place ``batch`` were delivered."""
        length = self._length_of_epoch()
        return length is not None and batch >= length

    def _has_hooks(self, *names: str) -> bool:
        """Whether these hooks, or any, are defined for its epochs."""
        return defines_hooks(self, *names)

    def _may_draw(self) -> bool:
        """Whether its batches may depend on ``random`` or ``numpy.random``, which then are seeded."""
        return True

    #: Whether the arrays of its batches are made for them, and kept by nobody: so they need not be copied.
    _makes_fresh_batches = False

    def _share(self) -> None:
        """Put large data of its own into shared memory, in the place of what it has: it will be sent to workers."""

    def _samples_at(self, places: Any) -> Any:
        """Its items at ``places``, an array of integers, as one batch; None: they have to be asked for one by one."""
        return None

    def _groups(self) -> Groups | None:
        """What puts its batches together of the samples of several jobs; None: a batch is of one job."""
        return None

    def _items_for_fit(self, items: list[Any]) -> list[Any]:
        """The items of a job as ``model.fit`` has them, which fills no batch from what follows."""
        if items and items[0] is Loose.FEWER:
            return [_makers["stack"](items[1:])] if len(items) > 1 else []
        return items

    def _asks_for_auto(self) -> bool:
        """Whether the workers it has are to be as many as pay."""
        return False

    def _share_waited(self) -> float | None:
        """What part of the pass its loop has waited for batches, 0 to 1; None: it makes them itself."""
        return None

    def _num_workers(self) -> int:
        """How many workers there are in the chain up to here."""
        return 0

    def _stop_workers(self) -> None:
        """End those of the chain up to here, which work for what was made of it."""
