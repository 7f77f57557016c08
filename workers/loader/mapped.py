"""What a front-end maps: its jobs, and where it stands, as its source answers it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from collections.abc import Sequence as OrderOf
from typing import Any

from workers import limits
from workers.errors import StateError
from workers.for_keras.endless import Counted
from workers.for_keras.reading import ENDLESS
from workers.job.task import JobSource, MakesItems, Task, one_of
from workers.sequence.base import Sequence
from workers.sequence.chain import Batch_co, NbWorkers
from workers.sequence.derived import SequenceDerived, job_indices_of, job_of, jobs_of, permutations_of
from workers.sequence.indexed import is_indexed
from workers.sequence.looks import Fact, count, state
from workers.sequence.order import Permuted
from workers.sequence.passes import Groups
from workers.sequence.position import Position

from .iterators import Iterators, source_of
from .sources import FedPass
from .tensor_items import unpacked

logger = logging.getLogger("workers")

NO_LIMIT = 2**62  # a max_queue_size that no loop reaches


class Mapped(SequenceDerived[Batch_co], MakesItems):
    """A function over a source of any kind. What is left to :class:`workers.SequenceMap` are loops and workers."""

    _own_workers: NbWorkers
    _pool: Any  # None: its workers are not running
    _pass: Any  # the one that the workers are at
    executor: str
    function_to_run: Any
    as_items: bool
    collate_fn: Callable[..., Any] | None
    on_error: Any
    worker_init_fn: Callable[[int], object] | None
    max_queue_size: int | None
    executor_options: dict[str, Any] | None
    in_order: bool
    job_timeout: float | None
    debug_job_report_timeout: float | None
    max_retries: int
    queue_timeout: float
    _is_indexed: bool

    def _jobs(self) -> tuple[Any, tuple[Callable[[Any], Any], ...], tuple[bool, ...]]:
        source, functions, as_items = jobs_of(self.source_split)
        if self.function_to_run is None:
            return source, functions, as_items
        return source, (*functions, self.function_to_run), (*as_items, self.as_items)

    @property
    def has_lists(self) -> bool:
        source, _, as_items = self._jobs()
        if any(as_items) or self.on_error != "raise":
            return True
        return isinstance(source, JobSource) and source.has_lists

    @property
    def _is_opaque(self) -> bool:  # type: ignore[override]
        return self.collate_fn is not None

    @property
    def _is_put_together(self) -> bool:  # type: ignore[override]
        return isinstance(self.source_split, Sequence) and self.source_split._is_put_together

    @property
    def _passes_on(self) -> bool:  # type: ignore[override]
        return self.function_to_run is None

    def _task(self) -> Task:
        task = super()._task()
        if not self._is_indexed:  # it is read here
            task.source = None
            task.unpack = unpacked if self._keeps_tensors() else None
        task.worker_init_fn = self.worker_init_fn
        return task

    def items_of_job(self, index: int) -> list[Any]:
        """Its items at ``index``, none if they are to be skipped. For jobs that work on them, as of a batch."""
        return self._items_or_none(index)

    def items_at(self, index: int, job: int, source: Any = None) -> list[Any]:
        """See :class:`MakesItems`; none if they are to be skipped."""
        return self._items_or_none(index, job, source)

    def _items_or_none(self, index: int, *known: Any) -> list[Any]:
        try:
            return self._items(index, *known)
        except Exception as error:
            if self.on_error != "skip":
                raise
            logger.error("item %d is skipped", index, exc_info=error)
            return []

    def __getitem__(self, index: int) -> Any:
        return one_of(self._items(index))

    def _items(self, index: int, job: int | None = None, source: Any = None) -> list[Any]:
        if not is_indexed(self.source_split):
            name = type(self.source_split).__name__
            raise TypeError(f"{name} has no __getitem__: its batches can be had by a loop only")
        task, job = super()._task(), job_of(self.source_split, index, self.epoch) if job is None else job
        if source is not None:
            task.source = source
        items = task.run(job, None)
        return items if self.collate_fn is None else [self.collate_fn(item, source=self) for item in items]

    def __len__(self) -> int:
        if not hasattr(self.source_split, "__len__"):
            raise TypeError(f"{type(self.source_split).__name__} has no length, so a map of it has none")
        length = self._source_length()
        if length >= ENDLESS:
            source = source_of(self._jobs()[0])
            name = source.dataset_name if isinstance(source, Counted) else type(source).__name__
            raise TypeError(f"a map of a {name} has no length: it does not end")
        return length

    def _length_for_fit(self) -> int | None:
        if self._is_length_exact:
            length = self._source_length()
            return None if length >= ENDLESS else length
        try:
            return len(self)
        except TypeError:  # it has none, or says so: what comes is an epoch
            return None

    def close(self) -> None:
        """Let go of everything. May be repeated; what comes after raises ClosedError."""
        super().close()
        if not self._is_length_exact:
            self._iterators().release()

    def _keeps_tensors(self) -> bool:
        """Whether the functions get tensors of what is read here, and not arrays."""
        functions = self._jobs()[1]
        return bool(functions) and getattr(functions[0], "wants_tensors", True)

    @property
    def _on_error_of_items(self) -> str:  # type: ignore[override]
        return self.on_error if isinstance(self.on_error, str) else "ask"

    def _iterators(self) -> Iterators:
        """The iterators that were made of the source, by this and by what else is made of the same front-end."""
        first: Any = self
        while isinstance(first.source_split, SequenceDerived):
            first = first.source_split
        iterators: Iterators = first.__dict__.setdefault("_own_iterators", Iterators())
        return iterators

    @property
    def nb_workers(self) -> NbWorkers:
        """The workers of its pool: its own, and those of what it is made of."""
        return "auto" if self._is_auto else self._num_workers()

    @property
    def max_queue_size_pin(self) -> int | None:
        """``max_queue_size``, of which it is another name."""
        return self.max_queue_size

    @property
    def max_jobs_at_once(self) -> int | None:
        """What ``max_queue_size`` is for each worker, at least 1; None: chosen. 0: no limit."""
        if self.max_queue_size is None:
            return None
        return 0 if self.max_queue_size >= NO_LIMIT else max(1, self.max_queue_size // self._most_workers())

    def _num_workers(self) -> int:
        return (0 if self._own_workers == "auto" else self._own_workers) + super()._num_workers()

    @property
    def _is_auto(self) -> bool:
        """As many workers as pay; unless some are asked for along the chain."""
        return self._asks_for_auto() and not self._num_workers()

    def _asks_for_auto(self) -> bool:
        return self._own_workers == "auto" or super()._asks_for_auto()

    def _most_workers(self) -> int:
        return limits.cores() if self._is_auto else max(1, self._num_workers())

    def _task_here(self) -> Task:
        """The same as :meth:`_task`, for jobs in this process that may outlast the loops."""
        return self._task()

    def _working_facts(self) -> Iterable[Fact]:
        if self._is_auto:
            yield Fact("workers", "auto", "workers as they pay")
            return
        number = self._num_workers()
        kind = "thread" if number and self.executor == "thread" else "worker"
        yield count(number, kind, f"{kind}s")
        if number and self._pool is None:
            yield state("not running")

    # -- where it stands: as its source, whatever is made of the batches

    def _identity(self) -> list[Any]:
        return super()._identity()[1]  # type: ignore[no-any-return]

    def _job_of(self, index: int, epoch: int) -> int:
        return job_of(self.source_split, index, epoch)

    def _jobs_of(self, indices: OrderOf[int], epoch: int) -> list[int]:
        return job_indices_of(self.source_split, indices, epoch)

    def _permutations(self, epoch: int) -> tuple[Permuted, ...]:
        return permutations_of(self.source_split, epoch)

    def _groups(self) -> Groups | None:
        source = self.source_split
        return source._groups() if isinstance(source, Sequence) and self._passes_on else None

    @property
    def _stride(self) -> int:  # type: ignore[override]
        return self.source_split._stride if isinstance(self.source_split, Sequence) else 1

    def _places(self, position: Position) -> OrderOf[int] | None:
        if self._stride > 1:
            return self.source_split._places(position)  # type: ignore[no-any-return]
        length = self._length_of_epoch() if self._is_indexed or self.is_stream else None
        return None if length is None else position.left(length)

    def _length_of_epoch(self) -> int | None:
        source = self.source_split
        if isinstance(source, Sequence):
            return source._length_of_epoch()
        return len(source) if hasattr(source, "__len__") else None

    @property
    def _is_length_exact(self) -> bool:  # type: ignore[override]
        return self._is_indexed or self.is_stream

    def _is_at_end(self, batch: int) -> bool:
        source = self.source_split
        if not self._is_length_exact:
            begun, length = self._pass, self._length_of_epoch()
            return length is not None and batch >= length and isinstance(begun, FedPass) and begun.is_at_end()
        return source._is_at_end(batch) if isinstance(source, Sequence) else super()._is_at_end(batch)

    def state_dict(self) -> dict[str, Any]:
        if self._stride > 1 and self._clock.position.delivered.partial and not self._is_put_together:
            raise StateError(
                "other ranks do not stand within this job, whose function returned a list, or of which samples were "
                "skipped: take the state when its last item has been delivered"
            )
        state = super().state_dict()
        length = None if self._is_length_exact else state["length"]  # of which more may have come
        if length is not None and max(state["batch"], *state["apart"], 0) >= length:
            state["length"] = None
        return state
