"""The front-end ``SequenceMap``: a for loop over what workers compute in the background."""

from __future__ import annotations

import logging
import queue
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from workers.checks import check_choice, check_int, check_seconds, short
from workers.engine import engine as pool
from workers.engine.delivery import Failure
from workers.engine.engine import Engine
from workers.engine.handover import Outcome
from workers.engine.report import given_up
from workers.engine.schedule import Schedule
from workers.engine.serial import SerialEngine
from workers.engine.watchdog import Options
from workers.errors import ClosedError, PrefetchError, StateError, presentable
from workers.job import seeding
from workers.job.task import Task, one_function
from workers.process.replica import Parcel, Pickled
from workers.sequence import state as resume
from workers.sequence.base import Sequence, SequenceDerived
from workers.sequence.shard import SequenceShard, check_not_sharded
from workers.sequence.state import Place

from .metadata import Metadata
from .reading import Items, IteratorItems, PassOver, Reading, StreamItems
from .starting import start

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
        max_retries: how often a job is run again: after its worker died or was stuck, and for ``"retry"``, together.

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
            raise TypeError(f"collate_fn must be a function or None, not {short(collate_fn)}")
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
        self._engine: Engine | SerialEngine | None = None
        self._finalizer: weakref.finalize[Any, Any] | None = None
        self._parcel: Parcel | None = None  # what the workers work on; None: this process's own objects
        self._num_passes = 0
        self._looks_ahead = True
        self._reading: Reading | None = None  # the pass
        self._kept: list[Any] = []  # what Keras was given last
        source = self._chain()[0]
        self._is_indexed = _is_indexed(source) and not self.is_stream
        if isinstance(source, SequenceMap) and not self._is_indexed:
            raise TypeError("of a source without indices, only the last map can have a collate_fn")
        self._start()

    # -- what it maps

    def _chain(self) -> tuple[Any, tuple[Any, ...]]:
        """(the first source, the functions from there to here)."""
        own = () if self.function_to_run is None else (self.function_to_run,)
        below = self._below()
        if below is not None:
            source, functions = below._chain()
            return source, (*functions, *own)
        source = self.source_split
        return (source.source_split if isinstance(source, SequenceShard) else source), own  # its batches are jobs

    def _below(self) -> SequenceMap | None:
        """The SequenceMap whose functions and workers are part of this one's pool."""
        source = self.source_split.source_split if isinstance(self.source_split, SequenceShard) else self.source_split
        return source if isinstance(source, SequenceMap) and source.collate_fn is None else None

    def _total_workers(self) -> int:
        below = self._below()
        return self.nb_workers + (0 if below is None else below._total_workers())

    def _task(self) -> Task:
        source, functions = self._chain()
        return Task(source if self._is_indexed else None, functions, self.seed)

    def __getstate__(self) -> dict[str, Any]:
        live: dict[str, Any] = {
            "_engine": None,
            "_parcel": None,
            "_reading": None,
            "_kept": [],
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
        stream = seeding.Stream(self.seed, self._generators)
        return self._one(seeding.run_job(stream, job, lambda: task.run(place, None)))

    def _task_parts(self) -> list[tuple[str, Any]]:
        source, functions = self._chain()
        return [("source", source), ("functions", functions)]

    # -- the engine

    def _start(self) -> None:
        """Start the workers, unless they are the next SequenceMap's in a chain."""
        nb_workers = self._total_workers()
        below = self._below()
        if below is not None:
            below._stop()
        task = self._task()
        if nb_workers == 0:
            self._engine = SerialEngine(task)
            return
        schedule = Schedule(
            nb_workers,
            self.max_queue_size,
            self.in_order,
            self.max_retries + 1,
            explain=given_up,
            keeps_failed=callable(self.on_error),
        )
        options = Options(self.debug_job_report_timeout, self.job_timeout)
        self._engine, self._parcel = start(task, nb_workers, self.executor, schedule, options)
        self._finalizer = weakref.finalize(self, self._engine.close)
        pool.watch_for_exit()
        logger.debug("%s started with %d workers", type(self).__name__, nb_workers)

    def _stop(self) -> None:
        if self._engine is not None:
            self._engine.close()
            if self._finalizer is not None:
                self._finalizer.detach()
            self._engine = None

    def _running(self) -> Engine | SerialEngine:
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

    def _begin_pass(self, order: list[int] | None = None, is_counted: bool = True) -> None:
        """Begin a pass over what is left of the current epoch, or over its batches ``order``."""
        self._reading = None
        engine, progress = self._running(), self._progress
        if is_counted:
            place, left = self._begin_loop()
        else:
            self._begin_epoch()
            place = progress.begin_loop(self._unit(), is_counted=False)
            left = self._left(place) if order is None else self._places(order)
        left = left or []  # None: as they are read
        self.metadata = Metadata()
        self._num_passes += 1
        parcel = self._look_for_changes()
        is_whole = order is None and place.is_at_start
        source = self._chain()[0]
        items: Items | None = None
        ahead, indices = None, None if is_whole and self._step == 1 else left
        if self._is_indexed:
            if order is None and self._looks_ahead:
                next_indices = None if self._step == 1 else self.source_split._left(Place())
                ahead = (place.epoch + 1, len(self), next_indices)
        elif self.is_stream:
            items, indices = StreamItems(source, place.epoch, left), []
        else:
            iterator = iter(source)
            if iterator is source and not is_whole and self._num_passes > 1:
                raise StateError(f"{type(source).__name__} is an iterator, which cannot begin again: give a new one")
            items = IteratorItems(iterator, place)
        num_jobs = len(left) if self._is_indexed else 0
        engine.begin(place.epoch, num_jobs, items is not None, ahead, parcel, indices)
        self._reading = Reading(engine, progress, place, num_jobs, items)

    def _left(self, place: Place) -> list[int] | None:
        if isinstance(self.source_split, SequenceShard):
            return self.source_split._left(place)
        return place.left(len(self)) if self._is_indexed or self.is_stream else None

    @property
    def _step(self) -> int:  # type: ignore[override]
        return self.source_split.world if isinstance(self.source_split, SequenceShard) else 1

    def _places(self, order: list[int]) -> list[int]:
        """The same batches by the indices of their jobs."""
        if isinstance(self.source_split, SequenceShard):
            indices = self.source_split._left(Place())
            return [indices[index] for index in order]
        return order

    def state_dict(self) -> dict[str, Any]:
        reading, place = self._reading, self._progress.place
        partial = reading.partial if reading is not None and reading.place is place else place.partial
        if partial and partial[1] and isinstance(self.source_split, SequenceShard):
            raise StateError("other ranks are not within this list of a function: take the state behind its last item")
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
        overrides = self._has_hooks()
        if self._parcel is None:  # jobs run on the user's own objects, which may change between two epochs
            self._looks_ahead = False
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
        reading = self._reading
        if reading is None or self._closed or reading.place.loads != reading.progress.loads:
            self._check_open()
            self.initializer()
            reading = self._reading
            assert reading is not None
        metadata = self.metadata
        start = time.perf_counter()
        while not reading.items:
            outcome = self._next_outcome(reading, blocking)
            try:
                items = self._items_of(reading, outcome)
            except Exception:
                if not reading.engine.has_ended:
                    reading.deliver(outcome, [])
                del outcome  # no cycle with the error that it may hold
                raise
            if items is None:  # on_error has begun something else
                return self.next_item(blocking)
            reading.deliver(outcome, items)
        metadata.time_to_get_next_batch += time.perf_counter() - start
        metadata.nb_batches += 1
        item = reading.items[-1]
        if self.collate_fn is not None:
            reading.is_collating = True
            try:
                item = self.collate_fn(item, source=self)
            except Exception as error:
                del reading.items[-1]
                if presentable(error) is error:
                    raise
                raise presentable(error) from error
            finally:
                reading.is_collating = False
        del reading.items[-1]  # no call comes behind it: what a Ctrl-C has kept back is still to come
        return item

    def _next_outcome(self, reading: Reading, blocking: bool) -> Outcome:
        self.metadata.pin_queue_size += len(reading.engine.outcomes)
        try:
            return reading.next(None if blocking else self.queue_timeout)
        except queue.Empty:
            raise StopIteration from None
        except PassOver:
            if reading.progress.is_of_now(reading.place):
                self._end_epoch()
            raise StopIteration from None

    def _items_of(self, reading: Reading, outcome: Outcome) -> list[Any] | None:
        """The items of an outcome. None: ``on_error`` has begun another loop, or loaded a state."""
        index, value, ns, received_ns = outcome
        self.metadata.time_processing += ns / 1e9
        if type(value) is not Failure:
            self.metadata.time_pinning += (time.monotonic_ns() - received_ns) / 1e9
            items: list[Any] = value
            return items
        what = ""
        try:
            while (what := self._what_of(reading, value.error)) == "retry" and value.runs <= self.max_retries:
                logger.warning("batch %d of epoch %d is tried again", index, reading.place.epoch, exc_info=value.error)
                _, value, ns, _ = reading.engine.repeat(index, value.runs)
                self.metadata.time_processing += ns / 1e9
                if type(value) is not Failure:
                    return list(value)
            if not what:
                return None
            if what != "skip":
                raise value.error
            logger.error("batch %d of epoch %d is skipped", index, reading.place.epoch, exc_info=value.error)
            return []
        except Exception:
            what = "raise"
            raise
        finally:
            if callable(self.on_error) and what in ("skip", "raise") and type(value) is Failure:
                reading.engine.forget(index)
            del value, outcome  # no cycle with the error

    def _what_of(self, reading: Reading, error: BaseException) -> str:
        """What to do about a job that failed; nothing, if there is no saying any more."""
        if not callable(self.on_error):
            return str(self.on_error)
        if reading.is_deciding:
            raise RuntimeError("on_error must not ask for the batches of the loop it was called for")
        reading.is_deciding = True
        try:
            what = self.on_error(error)
        except StopIteration as raised:
            raise presentable(raised) from raised
        finally:
            reading.is_deciding = False
        if what not in ("raise", "skip", "retry"):
            text = f"on_error must return 'raise', 'skip' or 'retry', not {short(what)}"
            raise (TypeError if not isinstance(what, str) else ValueError)(text) from error
        is_left = self._reading is not reading or reading.place.loads != reading.progress.loads
        return "" if is_left and not self._closed else str(what)

    def _keras_front(self) -> SequenceMap:
        return self

    def _ask(self, index: int, order: list[int] | None) -> Any:
        """Batch ``index``, which is the first of ``order``, or, where that is None, the next of the pass."""
        if order is not None:
            is_whole = self.in_order and order == list(range(len(self)))
            self._begin_pass(None if is_whole else order, is_counted=False)
        start = time.perf_counter()
        items = self._items_for_keras()
        if len(items) > 1 and all(isinstance(item, (tuple, dict)) for item in items):
            raise TypeError("function_to_run returns a list of batches, one by one; Keras wants one for each index")
        self.metadata.time_to_get_next_batch += time.perf_counter() - start
        self.metadata.nb_batches += 1
        if self.on_error != "raise":  # Keras wants as many batches as there are
            items = items or self._kept or self._another(index)
            self._kept = items
        return self._one(items)

    def _items_for_keras(self) -> list[Any]:
        reading = self._reading
        assert reading is not None
        outcome = reading.next()
        try:
            items = self._items_of(reading, outcome)
        finally:
            if not reading.engine.has_ended:
                reading.deliver(outcome, [])
        return items or []

    def _another(self, index: int) -> list[Any]:
        """A batch in place of the skipped ``index``: the first that can be had behind it."""
        for step in range(1, len(self)):
            self._keras_use.forget()
            self._begin_pass([(index + step) % len(self)], is_counted=False)
            items = self._items_for_keras()
            if items:
                return items
        raise PrefetchError("all batches were skipped")

    def _one(self, items: list[Any]) -> Any:
        """What an index stands for."""
        if self.collate_fn is not None:
            items = [self.collate_fn(item, source=self) for item in items]
        return items[0] if len(items) == 1 else items

    def fill_queue(self) -> None:
        """Read items of a source that has only ``__iter__``, as many as may be in work. Called by ``next``."""
        if self._reading is not None:
            self._reading.fill_queue()

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
        self._reading = None
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


def _is_indexed(source: Any) -> bool:
    if isinstance(source, SequenceMap):
        return source._is_indexed or source.is_stream
    return hasattr(source, "__getitem__") and hasattr(source, "__len__")


def _check_source(source: Any) -> None:
    if isinstance(source, type) or not (_is_indexed(source) or hasattr(source, "__iter__")):
        raise TypeError(
            "source_split must have __len__ and __getitem__, or __iter__; "
            f"{short(source)} ({type(source).__name__}) has neither"
        )
