"""The front-end ``SequenceMap``: a for loop over what workers compute in the background."""

from __future__ import annotations

import errno
import logging
import math
import os
import queue
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from . import pool, resume, seeding
from .errors import ClosedError, PlatformError, PrefetchError, check_choice, check_int, check_seconds
from .executors import Executor, SerialExecutor, ThreadExecutor
from .layout import as_numpy
from .pool import Engine, Options, Outcome, PassOver
from .replica import Parcel, Pickled
from .report import Metadata, given_up
from .resume import Progress
from .schedule import Failure, Schedule
from .sequence import Sequence, SequenceDerived, defines
from .sequence_shard import SequenceShard, check_not_sharded
from .task import Task, one_function

logger = logging.getLogger("workers")

default_queue_timeout = 0.001  # seconds, as in trw


class SequenceMap(SequenceDerived):
    """A sequence mapped by a function in worker processes, read by a plain for loop.

    One pass of the loop is one epoch. ``break`` is allowed: the next pass is the next epoch, whole.

    Args:
        source_split: what to map. Anything with ``__len__`` and ``__getitem__`` (the workers then compute whole
            batches), or with ``__iter__`` only (its items are read here and shipped to the workers).
        nb_workers: worker processes; 0: computed in this process, when asked. If ``source_split`` is a SequenceMap
            with workers of its own, both functions run in one pool of all their workers.
        function_to_run: a function of a batch, or a list of functions applied one after the other, or None. One that
            returns a *list* yields its items one by one.
        max_jobs_at_once: batches finished or in work ahead of the consumer, per worker. None: as ``max_queue_size``
            says; 0: no limit.
        queue_timeout: seconds that ``next_item(blocking=False)`` waits.
        debug_job_report_timeout: a job that takes longer than these seconds is reported in the log, with its
            Python stack. None: never.
        collate_fn: ``collate_fn(batch, source=self)`` is what the loop gets; called in the consumer's thread.
        max_queue_size_pin: takes the place of ``max_jobs_at_once``, for all workers together.
        max_queue_size: at most this many batches are finished or in work ahead of the consumer. None: what is
            enough for 50 ms of work, if it fits 64 MB; at least 2 for each worker and 2 more.
        executor: ``"process"``, or ``"thread"`` for functions that wait or let go of the interpreter's lock. Threads
            share the global generators, so there only ``current_rng()`` is reproducible.
        seed: what random draws depend on; None: the seed of ``source_split``, or one drawn once.
        in_order: deliver in the order of indices; False: as batches come, within an epoch.
        on_error: ``"raise"`` the exception of a job at its batch's place (the next ``next()`` goes on behind it), or
            ``"skip"`` the batch and log it. A function of the exception returns one of these, or ``"retry"``: run
            the job again, with the same draws. It is called in the consumer's thread.
        job_timeout: seconds after which a worker that is stuck in a job is replaced and the job run again. None: never.
        max_retries: how often a job is run again, after its worker died or was stuck or for ``"retry"``.

    Raises:
        ValueError, TypeError: an argument is wrong. NotPicklableError: ``source_split`` or ``function_to_run``
            holds something that cannot be sent to a process; the message says what.

    Source: ``trw.train.SequenceMap`` for names and meaning of what stands before ``max_queue_size``.
    """

    def __init__(
        self,
        source_split: Any,
        nb_workers: int,
        function_to_run: Any = None,
        max_jobs_at_once: int | None = None,
        queue_timeout: float = default_queue_timeout,
        debug_job_report_timeout: float | None = 30.0,
        collate_fn: Callable[..., Any] | None = None,
        max_queue_size_pin: int | None = None,
        *,
        max_queue_size: int | None = None,
        executor: str = "process",
        seed: int | None = None,
        in_order: bool = True,
        on_error: str | Callable[[BaseException], str] = "raise",
        job_timeout: float | None = None,
        max_retries: int = 2,
    ) -> None:
        self.nb_workers = check_int("nb_workers", nb_workers, 0)
        self.executor = check_choice("executor", executor, ("process", "thread"))
        self.in_order = bool(check_choice("in_order", in_order, (True, False)))
        self.on_error = on_error if callable(on_error) else check_choice("on_error", on_error, ("raise", "skip"))
        self.max_retries = check_int("max_retries", max_retries, 0)
        self.queue_timeout = check_seconds("queue_timeout", queue_timeout, allow_none=False)
        self.debug_job_report_timeout = check_seconds("debug_job_report_timeout", debug_job_report_timeout)
        self.job_timeout = check_seconds("job_timeout", job_timeout)
        if collate_fn is not None and not callable(collate_fn):
            raise TypeError(f"collate_fn must be a function or None, not {collate_fn!r}")
        self.collate_fn = collate_fn
        self.function_to_run = one_function(function_to_run)
        self.max_queue_size = _bound(self.nb_workers, max_queue_size, max_jobs_at_once, max_queue_size_pin)
        _check_source(source_split)
        check_not_sharded(source_split)
        super().__init__(source_split)
        if seed is not None:
            checked = seeding.check_seed(seed)
            self._own_seed: int | None = checked
        else:
            self._own_seed = None
        self.metadata = Metadata()
        self._engine: Engine | None = None
        self._parcel: Parcel | None = None  # what the workers work on; None: this process's own objects
        self._num_passes = 0
        self._looks_ahead = True
        self._items: list[Any] = []  # of the outcome being delivered, last one first
        self._current = (-1, 0)  # (index, number of items) of that outcome
        self._kept: list[Any] = []  # what Keras was given last
        self._left = 0  # outcomes of the pass not yet taken
        self._iterator: Iterator[Any] | None = None  # of a source that has only __iter__, until it is exhausted
        self._source_error: Exception | None = None  # what that raised
        self._epoch_read = -1
        self._is_begun = False  # something of the pass was read
        self._step = source_split.world if isinstance(source_split, SequenceShard) else 1
        self._is_indexed = _is_indexed(source_split) and not self.is_stream
        self._start()

    # -- what it maps

    def _chain(self) -> tuple[Any, tuple[Any, ...]]:
        """(the first source, the functions from there to here)."""
        source, functions = self.source_split, ()
        if isinstance(source, SequenceShard):  # its batches are jobs of its source
            source = source.source_split
        own = () if self.function_to_run is None else (self.function_to_run,)
        if isinstance(source, SequenceMap) and source.collate_fn is None:
            source, functions = source._chain()
        return source, (*functions, *own)

    def _total_workers(self) -> int:
        source = self.source_split
        below = source._total_workers() if isinstance(source, SequenceMap) and source.collate_fn is None else 0
        return self.nb_workers + below

    def _task(self) -> Task:
        source, functions = self._chain()
        return Task(source if self._is_indexed else None, functions, self.seed)

    def __getstate__(self) -> dict[str, Any]:
        live: dict[str, Any] = {
            "_engine": None,
            "_parcel": None,
            "_items": [],
            "_kept": [],
            "_left": 0,
            "_iterator": None,
            "_source_error": None,
            "_finalizer": None,
        }
        return {**self.__dict__, **live, "metadata": None}

    @property
    def seed(self) -> int:
        """What all random draws depend on."""
        return super().seed if self._own_seed is None else self._own_seed

    def __len__(self) -> int:
        if not hasattr(self.source_split, "__len__"):
            raise TypeError(f"{type(self.source_split).__name__} has no length, so a map of it has none")
        return len(self.source_split)

    def __getitem__(self, index: int) -> Any:
        if not _is_indexed(self.source_split):
            name = type(self.source_split).__name__
            raise TypeError(f"{name} has no __getitem__: its batches can be had by a loop only")
        (place,) = self._places([index])
        task = Task(*self._chain(), self.seed)
        if place == index:
            return self._one(task.run(index, None))
        job = seeding.Job(self.epoch, place)  # of a shard: the draws are those of its place in the epoch
        return self._one(seeding.run_job(seeding.Stream(self.seed), job, lambda: task.run(place, None)))

    # -- the engine

    def _start(self) -> None:
        """Start the workers, unless they are the next SequenceMap's in a chain."""
        nb_workers = self._total_workers()
        if isinstance(self.source_split, SequenceMap) and self.source_split.collate_fn is None:
            self.source_split._stop()
        task = self._task()
        executor: Executor
        bound = self.max_queue_size
        if nb_workers == 0:
            executor, bound = SerialExecutor(task), 1
        elif self.executor == "thread":
            executor = ThreadExecutor(task, nb_workers)
        else:
            from .processes import ProcessExecutor

            pickled = Pickled(task, "the sequence")
            try:
                executor = ProcessExecutor(nb_workers, lambda: Parcel(pickled))
            except OSError as error:
                raise _explained(error, nb_workers) from error
            self._parcel = executor.parcel
        schedule = Schedule(nb_workers, bound, self.in_order, self.max_retries + 1, explain=given_up)
        options = Options(self.debug_job_report_timeout, self.job_timeout)
        try:
            self._engine = Engine(executor, schedule, options)
        except OSError as error:
            executor.close()
            raise _explained(error, nb_workers) from error
        self._finalizer = weakref.finalize(self, self._engine.close)
        pool.watch_for_exit()
        logger.debug("%s started with %d workers", type(self).__name__, nb_workers)

    def _stop(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._finalizer.detach()
            self._engine = None

    def _running(self) -> Engine:
        self._check_open()
        if self._engine is None:  # it was part of a chain, or is a copy
            self._start()
        assert self._engine is not None
        return self._engine

    def initializer(self) -> None:
        """Begin the next pass. Called by ``iter()``."""
        self._keras_use.begin_loop()
        self._running()
        self._end_abandoned_epoch()
        self._begin_pass()

    def _begin_pass(self, order: list[int] | None = None) -> None:
        """Begin a pass over the current epoch, or over its batches ``order``."""
        engine = self._running()
        self._begin_epoch()
        self._items = []
        self._iterator = self._source_error = None
        self.metadata = Metadata()
        self._is_begun = False
        epoch = self._epoch_read = self._progress.epoch
        self._num_passes += 1
        parcel = self._look_for_changes()
        source = self._chain()[0]
        self._reading = progress = self._progress
        self._loads = progress.loads
        ahead = None
        if order is not None:
            order = self._places(order)
        else:
            order = self._order()
            if self._looks_ahead and self._is_indexed:
                next_order = self.source_split.indices(0) if isinstance(self.source_split, SequenceShard) else None
                ahead = (epoch + 1, len(self), next_order)
        self._left = 0
        if self.is_stream:
            order = list(range(len(source))) if order is None else order
            engine.begin(epoch, 0, True, None, parcel, order)
            self._iterator = (source[index] for index in order)
        elif order is not None:
            self._left = len(order)
            engine.begin(epoch, self._left, False, ahead, parcel, order)
        elif self._is_indexed:
            self._left = len(self)
            engine.begin(epoch, self._left, False, ahead, parcel)
        else:
            order = None if progress.is_at_start else []  # grows as they are read
            engine.begin(epoch, 0, True, None, parcel, order)
            self._iterator = iter(source) if order is None else _left_of(source, progress, order)

    def _order(self) -> list[int] | None:
        """The indices of the pass that begins; None: all of them."""
        progress = self._progress
        if isinstance(self.source_split, SequenceShard):
            self.source_split._check_place()
            return self.source_split.indices(progress.batch)
        if not (self._is_indexed or self.is_stream) or (progress.is_at_start and not progress.partial):
            return None
        return progress.left(len(self))

    def _places(self, order: list[int]) -> list[int]:
        """The same batches by the indices of their jobs."""
        if isinstance(self.source_split, SequenceShard):
            indices = self.source_split.indices(0)
            return [indices[index] for index in order]
        return order

    def state_dict(self) -> dict[str, Any]:
        progress, (index, number) = self._progress, self._current
        partial = progress.partial
        if self._items and (self._loads, self._epoch_read) == (progress.loads, progress.epoch):
            partial = index, number - len(self._items)
        return resume.state_of(self, partial)

    def _described(self) -> list[Any]:
        return resume.described(self.source_split)  # the same place in the same epoch, whatever is made of its batches

    def _length_of_epoch(self) -> int | None:
        source = self.source_split
        if isinstance(source, Sequence):
            return source._length_of_epoch()
        return len(source) if hasattr(source, "__len__") else None

    def _is_at_end(self, batch: int) -> bool:
        source = self.source_split
        return source._is_at_end(batch) if isinstance(source, Sequence) else super()._is_at_end(batch)

    def _look_for_changes(self) -> Parcel | None:
        """What the workers have to be sent anew, None if nothing has changed in the user's objects."""
        overrides = defines(self, "on_epoch_begin", "on_epoch_end")
        if self._parcel is None:
            self._looks_ahead = not overrides
            return None
        pickled = Pickled(self._task(), "the sequence")
        is_same, same = self._parcel.compare(pickled, content=overrides)
        if is_same:
            return None
        # What has changed at one epoch's end will at the next: jobs done ahead would be done in vain.
        self._looks_ahead = self._num_passes <= 1
        self._parcel = Parcel(pickled, self._parcel, same)
        return self._parcel

    def __iter__(self) -> Iterator[Any]:
        self.initializer()
        return self

    def __next__(self) -> Any:
        return self.next_item(blocking=True)

    def next_item(self, blocking: bool) -> Any:
        """The next batch.

        Args:
            blocking: wait for it. If not, at most ``queue_timeout`` seconds, and then raise StopIteration.

        Raises:
            StopIteration: the pass is over (or see ``blocking``). What a job raised, at its batch's place.
        """
        if self._closed or self._epoch_read < 0 or self._reading.loads != self._loads:
            self._check_open()
            self.initializer()
        metadata = self.metadata
        start = time.perf_counter()
        items = self._items
        while not items:
            outcome = self._next_outcome(blocking)
            passed_by = self._count(outcome[0])
            items = self._items_of(outcome)
            self._current = outcome[0], len(items)
            self._items = items = items[passed_by:][::-1]
        metadata.time_to_get_next_batch += time.perf_counter() - start
        metadata.nb_batches += 1
        item = items.pop()
        return item if self.collate_fn is None else self.collate_fn(item, source=self)

    def _count(self, index: int) -> int:
        """Batch ``index`` is delivered. Returns: how many of its items were before."""
        progress = self._reading
        if self._epoch_read != progress.epoch:  # it was set in between
            return 0
        if progress.partial and progress.partial[0] == index:
            passed_by, progress.partial = progress.partial[1], None
            return passed_by
        if self._step == 1:
            progress.passed(index)
        else:
            progress.batch += self._step
        return 0

    def _items_of(self, outcome: Outcome) -> list[Any]:
        index, (value, ns, received_ns) = outcome
        self.metadata.time_processing += ns / 1e9
        if type(value) is not Failure:
            self.metadata.time_pinning += (time.monotonic_ns() - received_ns) / 1e9
            items: list[Any] = value
            return items
        error, what = value.error, self._what_of(value.error)
        for attempt in range(1, self.max_retries + 1):
            if what != "retry":
                break
            logger.warning("batch %d of epoch %d is tried again", index, self._epoch_read, exc_info=error)
            _, (value, ns, _) = self._running().repeat(index, attempt)
            self.metadata.time_processing += ns / 1e9
            if type(value) is not Failure:
                return list(value)
            error, what = value.error, self._what_of(value.error)
        if what != "skip":
            raise error
        logger.error("batch %d of epoch %d is skipped", index, self._epoch_read, exc_info=error)
        return []

    def _what_of(self, error: BaseException) -> str:
        """What to do about a job that failed."""
        if not callable(self.on_error):
            return str(self.on_error)
        what = self.on_error(error)
        if what not in ("raise", "skip", "retry"):
            text = f"on_error must return 'raise', 'skip' or 'retry', not {what!r:.100}"
            raise (TypeError if not isinstance(what, str) else ValueError)(text) from error
        return str(what)

    def _keras_front(self) -> SequenceMap:
        return self

    def _ask(self, index: int, order: list[int] | None) -> Any:
        """Batch ``index``, which is the first of ``order``, or, where that is None, the next of the pass."""
        if order is not None:
            is_whole = self.in_order and order == list(range(len(self)))
            self._begin_pass(None if is_whole else order)
        start = time.perf_counter()
        items = self._items_of(self._outcome())
        if len(items) > 1 and all(isinstance(item, (tuple, dict)) for item in items):
            raise TypeError("function_to_run returns a list of batches, one by one; Keras wants one for each index")
        self.metadata.time_to_get_next_batch += time.perf_counter() - start
        self.metadata.nb_batches += 1
        if self.on_error != "raise":  # Keras wants as many batches as there are
            items = items or self._kept or self._another(index)
            self._kept = items
        return self._one(items)

    def _outcome(self) -> Outcome:
        """The next of a pass for Keras."""
        if self._iterator is not None:
            self.fill_queue()
        if self._left == 0 and self._source_error is not None:
            error, self._source_error = self._source_error, None
            raise error
        outcome = self._running().next()
        self._left -= 1
        return outcome

    def _another(self, index: int) -> list[Any]:
        """A batch in place of the skipped ``index``: the first that can be had behind it."""
        for step in range(1, len(self)):
            self._keras_use.forget()
            self._begin_pass([(index + step) % len(self)])
            items = self._items_of(self._outcome())
            if items:
                return items
        raise PrefetchError("all batches were skipped")

    def _one(self, items: list[Any]) -> Any:
        """What an index stands for."""
        if self.collate_fn is not None:
            items = [self.collate_fn(item, source=self) for item in items]
        return items[0] if len(items) == 1 else items

    def _next_outcome(self, blocking: bool) -> Outcome:
        if self._iterator is not None:
            self.fill_queue()
        if self._left == 0:
            return self._end_pass()
        engine = self._engine or self._running()
        self.metadata.pin_queue_size += engine.outcomes.qsize()
        try:
            outcome = engine.next(None if blocking else self.queue_timeout)
        except queue.Empty:
            raise StopIteration from None
        except PassOver:
            return self._end_pass()
        self._left -= 1
        if not self._is_begun:
            self._is_begun = self._progress.is_begun = True
        return outcome

    def _end_pass(self) -> NoReturn:
        self._left = 0
        if self._source_error is not None:
            error, self._source_error = self._source_error, None
            raise error
        if self._epoch_read == self._progress.epoch:
            self._end_epoch(self._epoch_read)
        raise StopIteration

    def fill_queue(self) -> None:
        """Read items of a source that has only ``__iter__``, as many as may be in work. Called by ``next``."""
        engine = self._running()
        while self._iterator is not None and self._left < engine.bound():
            try:
                engine.add(as_numpy(next(self._iterator)))
                self._left += 1
            except StopIteration:
                self._iterator = None
            except Exception as error:  # raised in its place, behind the items that were read before it
                self._iterator, self._source_error = None, error

    def has_background_jobs(self) -> bool:
        """Whether a worker has something to do."""
        return self._engine is not None and self._engine.has_background_jobs

    # -- parts, and the end

    def _with_source(self, source: Any) -> SequenceMap:
        # In this process: a part is small most often, as trw has it.
        return SequenceMap(source, 0, self.function_to_run, collate_fn=self.collate_fn, seed=self._own_seed)

    def subsample(self, nb_samples: int) -> SequenceMap:
        return self._with_source(self.source_split.subsample(nb_samples))

    def subsample_uids(self, uids: Any, uids_name: str, new_sampler: Any = None) -> SequenceMap:
        return self._with_source(self.source_split.subsample_uids(uids, uids_name, new_sampler))

    def close(self) -> None:
        """End the workers. May be repeated. Batches that were delivered stay valid."""
        self._closed = True
        self._items = []
        self._kept = []
        self._stop()

    _closed = False

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"this {type(self).__name__} was closed; make a new one")
        if isinstance(self.source_split, Sequence):
            self.source_split._check_open()


def _bound(nb_workers: int, max_queue_size: Any, max_jobs_at_once: Any, max_queue_size_pin: Any) -> int | None:
    if max_queue_size is not None:
        return check_int("max_queue_size", max_queue_size, 1, "None or an integer >= 1")
    if max_queue_size_pin is not None:
        return check_int("max_queue_size_pin", max_queue_size_pin, 1, "None or an integer >= 1")
    if max_jobs_at_once is None:
        return None
    per_worker = check_int("max_jobs_at_once", max_jobs_at_once, 0, "None or an integer >= 0")
    return per_worker * max(nb_workers, 1) if per_worker else 2**62


def _left_of(source: Any, progress: Progress, order: list[int]) -> Iterator[Any]:
    """What was not delivered of a source that is read from its beginning; the indices are put into ``order``."""
    batch, apart, partial = progress.batch, set(progress.apart), progress.partial  # as they are now
    for index, item in enumerate(source):
        if (partial and partial[0] == index) or (index >= batch and index not in apart):
            order.append(index)
            yield item


def _explained(error: OSError, nb_workers: int) -> OSError:
    if error.errno not in (errno.EMFILE, errno.ENFILE):
        return error
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return PlatformError(
        error.errno,
        f"{nb_workers} workers cannot be started: no file descriptors are left, of {limit} (ulimit -n); each worker "
        "needs two, and the pool a few more",
    )


def _is_indexed(source: Any) -> bool:
    return hasattr(source, "__getitem__") and hasattr(source, "__len__")


def _check_source(source: Any) -> None:
    if isinstance(source, type) or not (_is_indexed(source) or hasattr(source, "__iter__")):
        raise TypeError(
            "source_split must have __len__ and __getitem__, or __iter__; "
            f"{source!r:.200} ({type(source).__name__}) has neither"
        )


def usable_cores() -> int:
    """Cores this process may use: its affinity, and the quota of its cgroup."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
        if quota != "max":
            cores = min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        pass
    return max(1, cores)


def prefetch(
    sequence: Any,
    nb_workers: int | None = None,
    max_queue_size: int | None = None,
    executor: str = "process",
    seed: int | None = None,
    in_order: bool = True,
    on_error: str | Callable[[BaseException], str] = "raise",
    job_timeout: float | None = None,
    max_retries: int = 2,
) -> SequenceMap:
    """Compute the batches of ``sequence`` ahead, in worker processes.

    Args:
        sequence: anything with ``__len__`` and ``__getitem__``: a Sequence, a Keras PyDataset, a torch Dataset, a list.
        nb_workers: None: the cores this process may use less one, at least 1.
        max_queue_size, executor, seed, in_order, on_error, job_timeout, max_retries: see :class:`SequenceMap`.

    Returns:
        The front-end, to be used as ``with prefetch(...) as batches: for batch in batches: ...``.

    >>> with prefetch([1, 2, 3], nb_workers=0) as batches:
    ...     print(list(batches))
    [1, 2, 3]
    """
    return SequenceMap(
        sequence,
        max(1, usable_cores() - 1) if nb_workers is None else nb_workers,
        max_queue_size=max_queue_size,
        executor=executor,
        seed=seed,
        in_order=in_order,
        on_error=on_error,
        job_timeout=job_timeout,
        max_retries=max_retries,
    )
