"""Defines the front-end ``SequenceMap``: an iterable over batches that workers compute in the background."""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from workers.arguments import explains_options
from workers.checks import check_bool, check_function, check_int
from workers.errors import CacheError
from workers.frameworks import OutputName
from workers.frameworks.keras import Counted, counted, is_endless
from workers.job import seeding
from workers.job.task import chain_of, one_function, one_of
from workers.sequence.base import plan_of
from workers.sequence.chain import NbWorkers
from workers.sequence.clock import Clock
from workers.sequence.derived import SequenceDerived, items_of, parts_of, source_length
from workers.sequence.epochs import plan_of_epoch
from workers.sequence.passes import PassIterator, read_alone
from workers.sequence.plan import Plan
from workers.sequence.sample_errors import skipped
from workers.sequence.selection import Batch_co

from . import free, trw
from .front_end_types import FrontEndTypes
from .loop import Loop
from .options import INHERITED, Options, Policy, PrefetchOptions, bound, check_nb_workers, in_plan, options_of
from .tensors import Output, checked_output

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from .consumer import Metadata

logger = logging.getLogger("workers")


class SequenceMap(FrontEndTypes[Batch_co]):
    """A sequence mapped by a function in worker processes, read by a plain for loop.

    Each pass of the loop is one epoch. After a ``break``, the next pass reads the whole next epoch. Sequences made from
    this one use its workers, and inherit options that they are not given, except ``collate_fn`` and ``as_items``.

    Args:
        source_split: what to map: anything with ``__len__`` and ``__getitem__`` (the workers compute whole batches), or
            with only ``__iter__`` (its items are read in this process and sent to the workers).
        nb_workers: the number of worker processes; 0 to compute batches in this process when they are asked for;
            ``"auto"`` for as many as measurably make the loop faster, usually none at first. If ``source_split`` is a
            SequenceMap with workers, or was made from one, all their workers form one pool, which computes everything.
        function_to_run: a function of a batch, a list of functions applied one after the other, or None. The items of a
            returned *list* are delivered one by one: ``for x, y in ...`` fails if the function returns ``[x, y]``.
        max_jobs_at_once: the maximum number of batches, finished or in progress, ahead of the loop, per worker; 0 for
            no limit. By default, ``max_queue_size`` applies.
        queue_timeout: seconds that ``next_item(blocking=False)`` waits, by default 0.001.
        debug_job_report_timeout: seconds after which a running job is logged, with its Python stack; by default 30,
            None for never.
        collate_fn: called in the loop's thread for each batch: the loop gets ``collate_fn(batch, source=self)``.
        max_queue_size_pin: like ``max_jobs_at_once``, which it overrides, but for all workers together.
        max_queue_size: the maximum number of batches, finished or in progress, ahead of the loop. None to choose it
            automatically: enough for 50 ms of work (0.5 s with Ray), for the other workers to go on during a slow job,
            and for the longest recent step of the loop (at most 1 s), within 64 MB; at least 2 per worker and 2 more.
        executor: ``"process"``, the default, or ``"thread"`` for functions that wait or release the interpreter's lock.
            Threads share the global generators, so there only ``current_rng()`` is reproducible. ``"ray"``: see
            :mod:`workers.cluster`.
        executor_options: the options of the executor ``"ray"``.
        seed: determines all random draws; None for the seed of ``source_split``, or else for one that is drawn once.
        in_order: if True, the default, batches come in the order of their indices; if False, as an epoch's jobs finish.
        on_error: ``"raise"`` the exception of a job in place of its batch (the next ``next()`` goes on after it);
            ``"skip"`` the batch and log the exception; or ``"redraw"``: replace the samples of a batch that raise by
            others, drawn by (seed, epoch, batch); ``"retry"``: run the job again with the same draws, after
            ``retry_wait`` seconds, twice as many each time. Or a function, which gets the exception in the thread of
            the loop and returns ``"raise"``, ``"skip"`` or ``"retry"``. ``max_failures`` limits the samples lost in an
            epoch, to a number or to a share between 0 and 1.
        job_timeout: seconds after which a worker that is stuck in a job is replaced and the job run again; None,
            the default, for never.
        as_items: if False, a list returned by ``function_to_run`` is one batch.
        max_retries: the most times that a job is run again, by default 2, for whatever reason.
        max_worker_memory: the bytes of its own beyond which a worker process is replaced, between two jobs.
        output: ``"torch"``, ``"jax"`` or ``"tf"``: the loop gets tensors instead of arrays, over the same memory;
            strings and dates stay arrays. ``model.fit`` always gets what Keras needs. None to inherit it, else arrays.
        worker_init_fn: called once in each worker, with its number, before its first job; also in workers that replace
            another, or start again after a minute without work; with ``nb_workers=0``, in this process. Its errors end
            the loop. None to inherit it.

    Raises:
        ValueError, TypeError: an argument is wrong. NotPicklableError: ``source_split`` or ``function_to_run``
            holds something that cannot be sent to a process; the message says what.

    Source: ``trw.train.SequenceMap`` for the names and meaning of the arguments before ``max_queue_size``.
    """

    #: True if its function leaves out batches, so that their number is unknown.
    _is_filter = False

    on_error: Policy
    queue_timeout: float
    _output: Output | None

    @explains_options(PrefetchOptions)
    def __init__(
        self,
        source_split: Any,
        nb_workers: NbWorkers,
        function_to_run: Any = None,
        max_jobs_at_once: int | None = None,
        queue_timeout: float = INHERITED,
        debug_job_report_timeout: float | None = INHERITED,
        collate_fn: Callable[..., Any] | None = None,
        max_queue_size_pin: int | None = None,
        *,
        max_queue_size: int | None = INHERITED,
        as_items: bool = True,
        output: OutputName | None = None,
        **options: Unpack[PrefetchOptions],
    ) -> None:
        self._own_workers = check_nb_workers(nb_workers)
        given = {
            "queue_timeout": queue_timeout,
            "debug_job_report_timeout": debug_job_report_timeout,
            "max_queue_size": bound(self._own_workers, max_queue_size, max_queue_size_pin, max_jobs_at_once),
            **options,
        }
        front = _front_end_of(source_split)
        inherited = Options() if front is None else options_of(front)
        vars(self).update(vars(inherited.but(given)))
        self.collate_fn = check_function("collate_fn", collate_fn)
        self.function_to_run = one_function(function_to_run)
        self.as_items = check_bool("as_items", as_items)
        self._output = checked_output(output) or (None if front is None else front._output)
        self._own_seed = _check_one_seed(seeding.check_seed(options.get("seed")), source_split)
        super().__init__(counted(source_split))
        plan = self._plan()
        if plan.is_read_here and isinstance(plan.source, SequenceMap):
            raise TypeError("if the source has only __iter__, only the last map can have a collate_fn")
        self._live.start()

    def _make_live(self, clock: Clock | None = None) -> Loop:
        return Loop(self, self._own_workers, None, clock, self.collate_fn, self._output)

    # -- what it computes

    def _plan(self) -> Plan:
        finished_by = None if self.collate_fn is None else self
        how = self.as_items, finished_by, in_plan(self.on_error), self._own_seed
        return plan_of(self.source_split).mapped(self.function_to_run, *how)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return _length_of(self)

    def _count(self) -> int:
        return source_length(self)

    def _is_filtered(self) -> bool:
        return any(isinstance(each, SequenceMap) and each._is_filter for each in parts_of(self))

    def __getitem__(self, index: int) -> Any:
        """Return batch ``index`` of the current epoch, computed in this process."""
        return one_of(_items_of(self, plan_of_epoch(self).job(index)))

    @property
    def _has_lists(self) -> bool:
        return self._plan().has_lists

    def _items_of_job(self, index: int) -> list[Any]:
        """Return the items (batches) at place ``index`` of the epoch's order; [] if they are skipped."""
        return self._items_at(index, None)

    def _items_at(self, index: int, job: int | None, source: Any = None) -> list[Any]:
        """Return the items of ``job``, by default the one at ``index``, made from ``source``; [] if it is skipped."""
        job = plan_of_epoch(self).job_at(index) if job is None else job
        try:
            return _items_of(self, job, source)
        except Exception as error:
            if self.on_error != "skip" or isinstance(error, (CacheError, seeding.RunAgain)):
                raise
            return skipped(error, "item", job)

    # -- loops

    def __iter__(self) -> Iterator[Batch_co]:
        """Begin a pass over the remaining batches of the current epoch, and return an iterator over them."""
        loop = self._live
        this_pass = loop.begin()
        read = functools.partial(read_alone, this_pass, loop.consumer.next, loop, this_pass)
        iterator = PassIterator(self, this_pass, read)
        loop.iterator = weakref.ref(iterator)
        return iterator

    @property
    def nb_workers(self) -> NbWorkers:
        """The number of workers of this and all front-ends it is made from; "auto" if it is chosen by measurement."""
        return "auto" if self._live.is_auto else self._live.num_workers

    def close(self) -> None:
        """Stop the workers. May be called again. Delivered batches stay valid; later loops raise ClosedError."""
        try:
            super().close()
        finally:  # even if a progress bar cannot write
            self._live.close()

    # -- tensors

    @property
    def output(self) -> str | None:
        """The framework whose tensors the loop gets: ``"torch"``, ``"jax"`` or ``"tf"``; None if it gets arrays."""
        return None if self._output is None else self._output.name

    def to_device(self, device: Any, depth: int = 2) -> Self:
        """Deliver tensors on ``device``, and move the next batches there while the loop works on the current one.

        Tensors are copied to a CUDA device from pinned memory, asynchronously. On the CPU nothing is copied.

        Args:
            device: the device as the framework names it: a ``torch.device`` or ``"cuda:0"``; a JAX device or sharding,
                or ``"gpu"``; ``"/GPU:0"`` for TensorFlow.
            depth: how many batches to move ahead of the loop, in addition to ``max_queue_size``.

        Returns:
            This front-end.

        Raises:
            TypeError: ``output`` was not given. Any error of the framework if it has no such device.
        """
        if self._output is None:
            raise TypeError("to_device needs tensors: give output='torch', 'jax' or 'tf' to prefetch")
        self._output = self._live.output = self._output.on(device, check_int("depth", depth, 0))
        return self

    # -- sequences made from it

    free = free.free

    def _made(self, name: str, *arguments: Any, **options: Any) -> SequenceMap[Any]:
        return SequenceMap(super()._made(name, *arguments, **options), 0)

    def subsample(self, nb_samples: int) -> SequenceMap[Any]:
        return _like(self, self.source_split.subsample(nb_samples))

    def subsample_uids(self, uids: Any, uids_name: str, new_sampler: Any = None) -> SequenceMap[Any]:
        return _like(self, self.source_split.subsample_uids(uids, uids_name, new_sampler))

    # -- the interface that trw uses: see ``trw``

    def __next__(self) -> Batch_co:
        return self.next_item(blocking=True)  # type: ignore[no-any-return]

    def next_item(self, blocking: bool) -> Any:
        """Return the next batch of the current pass; begin a pass if there is none.

        Args:
            blocking: wait for the batch. If False, wait at most ``queue_timeout`` seconds, then raise StopIteration.

        Raises:
            StopIteration: the pass is over (or see ``blocking``). Any error of a job, in place of its batch.
        """
        return trw.next_item(self._live, None if blocking else self.queue_timeout)

    def initializer(self) -> None:
        """Begin a pass over the current epoch; ``next()`` on this object then returns its batches."""
        self._live.begin()

    def has_background_jobs(self) -> bool:
        """Return True if workers still have batches to compute."""
        return trw.has_background_jobs(self._live)

    def fill_queue(self) -> None:
        """Read items until the workers have enough, if this process reads the source; ``next()`` does this, too."""
        trw.fill_queue(self._live)

    @property
    def metadata(self) -> Metadata:
        """The statistics of the last pass over an epoch, such as the number of batches."""
        return self._live.consumer.metadata  # type: ignore[no-any-return]

    @property
    def max_queue_size_pin(self) -> int | None:
        """Another name for ``max_queue_size``: the most batches ahead of the loop; None if it is automatic."""
        return self.max_queue_size  # type: ignore[no-any-return]

    @property
    def max_jobs_at_once(self) -> int | None:
        """The most batches ahead of the loop per worker; None if it is chosen automatically, 0 if there is no limit."""
        return trw.max_jobs_at_once(self._live)


def _length_of(front: SequenceMap[Any]) -> int:
    origin, source = front._plan().origin, front.source_split
    if not hasattr(source, "__len__"):
        raise TypeError(f"{type(source).__name__} has no length, so a map of it has none")
    if front._is_filtered():
        raise TypeError(
            "how many batches a filter keeps is known only in a loop, so there is no length: write "
            ".filter(function, count=True), which finds out now"
        )
    length = source_length(front)
    if is_endless(length):
        name = origin.dataset_name if isinstance(origin, Counted) else type(origin).__name__
        raise TypeError(f"a map of a {name} has no length: it does not end")
    return length


def _items_of(front: SequenceMap[Any], job: int, source: Any = None) -> list[Any]:
    items = items_of(front, job, source)
    return items if front.collate_fn is None else [front.collate_fn(item, source=front) for item in items]


def _like(front: SequenceMap[Any], source: Any) -> SequenceMap[Any]:
    """Return a copy of ``front`` over ``source``, a part of its data. As in trw, it has no workers: parts are small."""
    own: dict[str, Any] = {"collate_fn": front.collate_fn, "as_items": front.as_items, "seed": front._own_seed}
    made = SequenceMap(source, 0, front.function_to_run, **vars(options_of(front)), **own)
    made._output = made._live.output = front._output
    return made


def _front_end_of(source: Any) -> SequenceMap[Any] | None:
    """Return ``source`` if it is a SequenceMap, else the last SequenceMap that it was made from, or None."""
    while isinstance(source, SequenceDerived) and not isinstance(source, SequenceMap):
        source = source.source_split
    return source if isinstance(source, SequenceMap) else None


def _check_one_seed(seed: int | None, source: Any) -> int | None:
    """Return ``seed``; raise ValueError if a map in the chain of ``source`` has another one, as a job has only one."""
    fronts = [each for each in chain_of(source) if isinstance(each, SequenceMap)]
    given = [each._own_seed for each in fronts if each._own_seed is not None]
    if seed is not None and given and given[0] != seed:
        raise ValueError(
            f"seed is {seed}, but a map before it was given seed {given[0]}: all functions of a chain draw from one "
            "seed, so give it once, at the end"
        )
    return seed
