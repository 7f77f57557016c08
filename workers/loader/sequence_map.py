"""The front-end ``SequenceMap``: a for loop over what workers compute in the background."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from collections.abc import Sequence as OrderOf
from typing import TYPE_CHECKING, Any, Literal

from workers import limits
from workers.arguments import explains_arguments
from workers.checks import check_choice, check_function
from workers.errors import StalePassError
from workers.figures.figures import Figures
from workers.for_keras.endless import counted
from workers.job import seeding
from workers.job.task import one_function
from workers.sequence.base import Sequence
from workers.sequence.chain import Batch_co, NbWorkers, makes
from workers.sequence.clock import on_behalf_of
from workers.sequence.indexed import is_indexed
from workers.sequence.passes import Pass, PassIterator, read_alone
from workers.sequence.position import Position

from . import tensors
from .consumer import Consumer
from .mapped import Mapped
from .metadata import Metadata
from .next_item import ReadByNext
from .on_error import OnError
from .options import (
    DEFAULTS,
    INHERITED,
    Executor,
    Output,
    Policy,
    bound,
    check_nb_workers,
    check_one_seed,
    checked,
    front_end_of,
    least_workers,
)
from .pool import Pool, Settings
from .reporting import Reports

logger = logging.getLogger("workers")


@makes("map")
class SequenceMap(Reports, Mapped[Batch_co], ReadByNext[Batch_co], tensors.HasOutput):
    """A sequence mapped by a function in worker processes, read by a plain for loop.

    One pass of the loop is one epoch. ``break`` is allowed: the next pass is the next epoch, whole. Whatever is made of
    it has its workers, and inherits the options that are not given, but ``collate_fn`` and ``as_items``.

    Args:
        source_split: what to map. Anything with ``__len__`` and ``__getitem__`` (the workers then compute whole
            batches), or with ``__iter__`` only (its items are read here and shipped to the workers).
        nb_workers: worker processes; 0: computed in this process, when asked. ``"auto"``: as many as pay, found out
            while the loop runs, which begins without any. If ``source_split`` is a SequenceMap
            with workers of its own, or was made of one, all runs in one pool of all their workers.
        function_to_run: a function of a batch, or a list of functions applied one after the other, or None. One that
            returns a *list* yields its items one by one: ``for x, y in ...`` fails where it returns ``[x, y]``.
        max_jobs_at_once: batches finished or in work ahead of the consumer, per worker. None: as ``max_queue_size``
            says; 0: no limit.
        queue_timeout: 0.001; seconds that ``next_item(blocking=False)`` waits.
        debug_job_report_timeout: 30; a job that takes longer than these seconds is reported in the log, with its
            Python stack. None: never.
        collate_fn: ``collate_fn(batch, source=self)`` is what the loop gets; called in the consumer's thread.
        max_queue_size_pin: takes the place of ``max_jobs_at_once``, for all workers together.
        max_queue_size: at most this many batches are finished or in work ahead of the consumer. None: what is
            enough for 50 ms of work (Ray: 0.5 s), for the other workers to go on during a slow job, and for as long as
            the loop lately was away (1 s at most), if it fits 64 MB; at least 2 for each worker and 2 more.
        executor: ``"process"``, the default, or ``"thread"`` for functions that wait or let go of the interpreter's
            lock. Threads share the global generators, so there only ``current_rng()`` is reproducible. ``"auto"``,
            with ``nb_workers="auto"``: what is found to be faster; it says that jobs may run in threads beside each
            other. Those seen to draw from other generators run in processes. ``"ray"``: see :mod:`workers.cluster`.
        executor_options: of ``"ray"``.
        seed: what random draws depend on; None: the seed of ``source_split``, or one drawn once.
        in_order: True, the default: deliver in the order of indices; False: as batches come, within an epoch.
        on_error: ``"raise"`` the exception of a job at its batch's place (the next ``next()`` goes on behind it), or
            ``"skip"`` the batch and log it. A function of the exception returns one of these, or ``"retry"``: run
            the job again, with the same draws. It is called in the consumer's thread. None: inherited, else
            ``"raise"``.
        job_timeout: seconds after which a worker that is stuck in a job is replaced and the job run again. None, the
            default: never.
        as_items: False: a list that ``function_to_run`` returns is one batch.
        max_retries: 2; how often a job is run again: after its worker died or was stuck, and for ``"retry"``, together.
        output: ``"torch"``, ``"jax"`` or ``"tf"``: the loop gets tensors of it in the place of arrays, over the same
            memory; strings and dates stay arrays. ``model.fit`` gets what Keras wants in any case. None: inherited,
            else numpy arrays.
        worker_init_fn: called once in each worker, with its number, before its first job; also in one that replaces
            another, or that starts after a minute without work; with ``nb_workers=0`` in this process. What it raises
            ends the loop. None: inherited.

    Raises:
        ValueError, TypeError: an argument is wrong. NotPicklableError: ``source_split`` or ``function_to_run``
            holds something that cannot be sent to a process; the message says what.

    Source: ``trw.train.SequenceMap`` for names and meaning of what stands before ``max_queue_size``.
    """

    _not_copied = (*Mapped._not_copied, "_consumer", "_figures", "_pool", "_pass", "_iterator", "_lock")

    @explains_arguments
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
        executor: Executor = INHERITED,
        executor_options: dict[str, Any] | None = INHERITED,
        seed: int | None = None,
        in_order: bool = INHERITED,
        on_error: Policy | None = None,
        job_timeout: float | None = INHERITED,
        max_retries: int = INHERITED,
        as_items: bool = True,
        output: Output | None = None,
        worker_init_fn: Callable[[int], object] | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name in DEFAULTS}
        self._own_workers = check_nb_workers(nb_workers)
        if max_queue_size is INHERITED and not (max_jobs_at_once is None and max_queue_size_pin is None):
            given["max_queue_size"] = None
        front = front_end_of(source_split)
        options = checked(front, self._own_workers, given)
        own_workers = limits.cores() if self._own_workers == "auto" else self._own_workers
        options["max_queue_size"] = bound(own_workers, options["max_queue_size"], max_jobs_at_once, max_queue_size_pin)
        vars(self).update(options)
        self.collate_fn = check_function("collate_fn", collate_fn)
        self.function_to_run = one_function(function_to_run)
        self.as_items = bool(check_choice("as_items", as_items, (True, False)))
        self._set_output(output, front)
        self._own_seed = check_one_seed(seeding.check_seed(seed), source_split)
        source_split = counted(source_split)
        super().__init__(source_split)
        self._make_own()
        source = self._jobs()[0]
        self._is_indexed = is_indexed(source) and not self.is_stream
        if isinstance(source, SequenceMap) and not self._is_indexed:
            raise TypeError("of a source without indices, only the last map can have a collate_fn")
        self._start()

    def _make_own(self) -> None:
        """What a copy has of its own."""
        self._figures = Figures()
        on_error = OnError(self.on_error, self.max_retries)
        self._consumer: Consumer = Consumer(on_error, self.collate_fn, self._figures.loop)
        self._pool: Pool | None = None
        self._pass: Pass | None = None  # the one that the workers are at
        self._iterator: Callable[[], PassIterator | None] | None = None  # what iter() has returned, held weakly
        self._lock = threading.RLock()  # model.fit may read in a thread of its own

    # -- its workers

    def _start(self) -> None:
        """Start the workers. Those of what this is made of are among them, and stop."""
        if isinstance(self.source_split, Sequence):
            self.source_split._stop_workers()
        settings = Settings(
            self.executor,
            self.max_queue_size,
            self.in_order,
            self.max_retries,
            callable(self.on_error),
            self.debug_job_report_timeout,
            self.job_timeout,
            self.executor_options or {},
        )
        nb_workers = None if self._is_auto else self._num_workers()
        if nb_workers is None and not self._is_indexed:  # read here: for the functions there are workers at once
            nb_workers = limits.default_nb_workers() if self._jobs()[1] else 0
        self._pool = Pool(self, nb_workers, least_workers(self), settings, self._figures)

    def _stop_workers(self) -> None:
        """End the workers until they are needed again, unless a loop over this is under way."""
        begun, is_held = self._pass, self._iterator is None or self._iterator() is not None
        if begun is None or begun.is_over or not (is_held and self._clock.is_begun):
            self._stop()
        super()._stop_workers()

    def _stop(self) -> None:
        if self._pool is not None:
            self._pool.close()
        self._pool = self._pass = None

    def _running(self) -> Pool:
        self._check_open()
        if self._pool is None:  # it was part of a chain, or is a copy
            self._start()
        assert self._pool is not None
        return self._pool

    @property
    def metadata(self) -> Metadata:
        """How the pass went that was begun last."""
        return self._consumer.metadata

    def _share_waited(self) -> float | None:
        return self._consumer.metadata._share_waited()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in self._not_copied}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._make_own()

    # -- loops

    def __iter__(self) -> Iterator[Batch_co]:
        """Begin a pass over what is left of the current epoch."""
        iterator = PassIterator(self, self._begin_pass())
        self._iterator = weakref.ref(iterator)
        return iterator

    def _begin_pass(self) -> Pass:
        self._pass = None  # whoever reads one in another thread lets go of it
        with self._lock:
            pool = self._running()
            position, places = self._begin_epoch()
            self._consumer.metadata = Metadata()
            self._pass = pool.begin(self, position, places, self._groups())
            self._consumer.figures.begin(self._pass.epoch, *pool.begun)
            return self._pass

    def _begin_apart(self, order: OrderOf[int] | None) -> Pass:
        """A pass over the batches at ``order`` of the current epoch that no state counts: see ``for_keras``."""
        self._pass = None
        with self._lock:
            pool, position = self._running(), Position(stride=self._stride)
            places = on_behalf_of(self._clock, self._places, position) or ()
            if order is not None:  # else all that come of a source that is read here
                places = _at(places, order, self.in_order)
            self._consumer.metadata = Metadata()
            self._pass = pool.begin(self, position, places, None)
            self._consumer.figures.begin(self._pass.epoch, *pool.begun)
            return self._pass

    def _next_of(self, begun: Pass, timeout_s: float | None = None) -> Any:
        return read_alone(begun, self._consumer.next, self, begun, timeout_s)

    def _next_items(self, begun: Pass, timeout_s: float) -> list[Any]:
        items: list[Any] = read_alone(begun, self._consumer.next_items, self, begun, timeout_s)
        return items

    def _check(self, begun: Pass) -> None:
        """Raise StopIteration or StalePassError if there is nothing more to be had of a pass."""
        begun.check(self)
        if self._pass is not begun:
            raise StalePassError(
                f"this iterator over a {type(self).__name__} is over: its workers work for something else now, such as "
                "model.fit, or what was made of it"
            )

    # -- what is made of it, and the end

    def _made(self, name: str, *arguments: Any) -> SequenceMap[Any]:
        made = SequenceMap(super()._made(name, *arguments), 0, **self._options())
        made._output = self._output
        return made

    def _options(self) -> dict[str, Any]:
        """What is made of it has these as well."""
        return {name: getattr(self, name) for name in DEFAULTS} | {"seed": self._own_seed}

    def _with_source(self, source: Any) -> SequenceMap[Any]:
        # In this process: a part is small most often, as trw has it.
        own: dict[str, Any] = {"collate_fn": self.collate_fn, "as_items": self.as_items}
        made = SequenceMap(source, 0, self.function_to_run, **self._options(), **own)
        made._output = self._output
        return made

    if TYPE_CHECKING:  # a front-end makes front-ends

        def batch(self, batch_size: int, discard_batch_not_full: bool = False) -> SequenceMap[Any]: ...
        def shuffle(self) -> SequenceMap[Batch_co]: ...
        def shard(self, rank: int, world: int, remainder: Literal["drop", "pad"] = "drop") -> SequenceMap[Batch_co]: ...

    def subsample(self, nb_samples: int) -> SequenceMap[Any]:
        return self._with_source(self.source_split.subsample(nb_samples))

    def subsample_uids(self, uids: Any, uids_name: str, new_sampler: Any = None) -> SequenceMap[Any]:
        return self._with_source(self.source_split.subsample_uids(uids, uids_name, new_sampler))

    def close(self) -> None:
        """End the workers. May be repeated. Batches that were delivered stay valid."""
        try:
            super().close()
        finally:  # also if a bar cannot write
            self._stop()


def _at(places: OrderOf[int], order: OrderOf[int], in_order: bool) -> OrderOf[int]:
    """Those of ``places``, which may be more than a list can hold, that ``order`` names."""
    if isinstance(order, range):
        return places[order.start : order.stop]
    is_all = in_order and len(order) == len(places) and order == list(range(len(places)))
    return places if is_all else [places[index] for index in order]
