"""The loop over a sequence whose batches workers compute: what a front-end has beside its options."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from collections.abc import Sequence as OrderOf
from typing import TYPE_CHECKING, Any

from workers import limits
from workers.errors import StalePassError
from workers.job.task import Task
from workers.report.pool import Figures
from workers.sequence.base import Sequence
from workers.sequence.chain import NbWorkers
from workers.sequence.clock import Clock
from workers.sequence.derived import parts_of
from workers.sequence.display import DisplayedFact, count, state
from workers.sequence.epochs import begin_epoch, plan_of_epoch
from workers.sequence.jobs import task_of
from workers.sequence.live import Live
from workers.sequence.passes import Pass, PassIterator, read_alone
from workers.sequence.plan import EpochPlan
from workers.sequence.position import Position

from .consumer import Consumer, Metadata
from .iterators import Iterators
from .loop_report import report_of
from .on_error import OnError
from .options import Options, options_of
from .pool import Pool
from .sources import FedPass
from .tensor_items import unpacked
from .tensors import Output

if TYPE_CHECKING:
    from workers.report.report import Report


class Loop(Live):
    """Passes over a sequence, and the pool of workers that computes their batches.

    The workers are its own, and those of all front-ends that the sequence is made of.

    Args:
        sequence: what is iterated: a front-end, or what ``model.fit`` was given.
        nb_workers: workers of its own; "auto": as many as pay.
        options: how they work; None: as the attributes of the front-end say.
        collate_fn: ``collate_fn(batch, source=sequence)`` is what the loop gets.

    Attributes:
        output: what tensors it gets in the place of arrays; None: arrays.
        current: the pass that the workers are at; None: none.
        pool: None: its workers are not running.
        iterator: what ``iter()`` has returned last, held weakly.
    """

    def __init__(
        self,
        sequence: Any,
        nb_workers: NbWorkers,
        options: Options | None,
        clock: Clock | None = None,
        collate_fn: Callable[..., Any] | None = None,
        output: Output | None = None,
    ) -> None:
        super().__init__(sequence, clock)
        self.own_workers = nb_workers
        self._options = options
        self.output = output
        self.figures = Figures()
        options = self.options
        self.consumer = Consumer(OnError(options.on_error, options.max_retries), collate_fn, self.figures.loop)
        self.pool: Pool | None = None
        self.current: Pass | None = None
        self.iterator: Callable[[], PassIterator | None] | None = None
        self.lock = threading.RLock()  # model.fit may read in a thread of its own
        self._own_iterators = Iterators()

    @property
    def sequence(self) -> Any:
        return self._sequence()

    @property
    def options(self) -> Options:
        """How its workers work. Those that run keep what they were started with."""
        return self._options or options_of(self.sequence)

    # -- what it computes

    def task(self) -> Task:
        """What its workers do."""
        task = task_of(self.sequence)
        if self.is_fed:
            task.source = None
            task.unpack = unpacked if self.keeps_tensors() else None
        task.worker_init_fn = self.options.worker_init_fn
        return task

    def task_here(self) -> Task:
        """The same for jobs in this process, which may outlast the loops: it does not keep the sequence alive."""
        task = self.task()
        if task.source is self.sequence:
            task.source = weakref.proxy(task.source)
        return task

    @property
    def is_fed(self) -> bool:
        """Whether what its jobs work on is read here, and sent to the workers."""
        plan = self.sequence._plan()
        return bool(plan.is_read_here or plan.is_stream)

    def keeps_tensors(self) -> bool:
        """Whether the functions get tensors of what is read here, and not arrays."""
        functions = self.sequence._plan().functions
        return bool(functions) and getattr(functions[0], "wants_tensors", True)

    def iterators(self) -> Iterators:
        """The iterators that were made of the source, by this and by what else is made of the same front-end."""
        return self._front_ends()[-1]._own_iterators

    def count_changes(self) -> int:
        """How often ``changed()`` was called in the chain up to here."""
        return sum(each._clock.num_changes for each in parts_of(self.sequence) if isinstance(each, Sequence))

    # -- workers

    def _front_ends(self) -> list[Loop]:
        """Itself, and those of what the sequence is made of."""
        lives = [each._live for each in parts_of(self.sequence)[1:] if isinstance(each, Sequence)]
        return [self, *(each for each in lives if isinstance(each, Loop))]

    @property
    def num_workers(self) -> int:
        """How many workers there are in the chain up to here."""
        return sum(each.own_workers for each in self._front_ends() if each.own_workers != "auto")

    @property
    def is_auto(self) -> bool:
        """As many workers as pay; unless some are asked for along the chain."""
        return not self.num_workers and any(each.own_workers == "auto" for each in self._front_ends())

    @property
    def most_workers(self) -> int:
        return limits.cores() if self.is_auto else max(1, self.num_workers)

    @property
    def num_running(self) -> int:
        """Workers that its jobs are run by now, or will be."""
        return self.num_workers if self.pool is None else self.pool.nb_workers

    def start(self) -> Pool:
        """Start the workers. Those of what this is made of are among them, and stop."""
        for each in self._front_ends()[1:]:
            each.stop_unless_read()
        nb_workers = None if self.is_auto else self.num_workers
        if nb_workers is None and self.is_fed:  # for the functions there are workers at once
            nb_workers = limits.default_nb_workers() if self.sequence._plan().functions else 0
        self.pool = Pool(self, nb_workers)
        return self.pool

    def stop_unless_read(self) -> None:
        """End the workers until they are needed again, unless a loop over this is under way."""
        this_pass, is_held = self.current, self.iterator is None or self.iterator() is not None
        if this_pass is None or this_pass.is_over or not (is_held and self.clock.is_begun):
            self.stop()

    def stop(self) -> None:
        if self.pool is not None:
            self.pool.close()
        self.pool = self.current = None

    def close(self) -> None:
        """End the workers, for good."""
        self.stop()
        self.iterators().release()

    # -- passes

    def begin(self) -> Pass:
        """A pass over what is left of the current epoch."""
        self.current = None  # whoever reads one in another thread lets go of it
        with self.lock:
            pool = self._running()
            plan, position, places = begin_epoch(self.sequence)
            return self._begun(pool, plan, position, places, plan.plan.assembly)

    def begin_apart(self, order: OrderOf[int] | None) -> Pass:
        """A pass over the batches at ``order`` of the current epoch that no state counts: see ``for_keras``."""
        self.current = None
        with self.lock:
            pool, plan = self._running(), plan_of_epoch(self.sequence, self.clock)
            position = Position(stride=plan.plan.world)
            places = plan.places(position) or ()
            if order is not None:  # else all that come of a source that is read here
                places = _at(places, order, self.options.in_order)
            return self._begun(pool, plan, position, places, None)

    def _running(self) -> Pool:
        self.sequence._check_open()
        return self.pool or self.start()  # none: it was part of a chain, or is a copy

    def _begun(self, pool: Pool, plan: EpochPlan, position: Position, places: OrderOf[int], assembly: Any) -> Pass:
        self.consumer.metadata = Metadata()
        this_pass = self.current = pool.begin(plan, position, places, assembly)
        self.consumer.figures.begin(this_pass.epoch, *pool.begun)
        return this_pass

    def next(self, this_pass: Pass, timeout_s: float | None = None) -> Any:
        """The next batch of a pass."""
        return read_alone(this_pass, self.consumer.next, self, this_pass, timeout_s)

    def next_items(self, this_pass: Pass, timeout_s: float) -> list[Any]:
        """All items of the next job of a pass that no state counts."""
        items: list[Any] = read_alone(this_pass, self.consumer.next_items, self, this_pass, timeout_s)
        return items

    def check(self, this_pass: Pass) -> None:
        """Raise StopIteration or StalePassError if there is nothing more to be had of a pass."""
        sequence = self.sequence
        this_pass.check(sequence)
        if self.current is not this_pass:
            raise StalePassError(
                f"this iterator over a {type(sequence).__name__} is over: its workers work for something else now, "
                "such as model.fit, or what was made of it"
            )

    def is_source_at_end(self) -> bool:
        """Whether nothing more comes of a source that is read here, in the current pass."""
        return isinstance(self.current, FedPass) and self.current.is_at_end()

    # -- what is told

    def share_waited(self) -> float | None:
        """What part of the pass it has waited for batches, 0 to 1."""
        return self.consumer.metadata._share_waited()

    def facts(self) -> Iterable[DisplayedFact]:
        """What is told of its workers."""
        if self.is_auto:
            yield DisplayedFact("workers", "auto", "workers as they pay")
            return
        number = self.num_workers
        kind = "thread" if number and self.options.executor == "thread" else "worker"
        yield count(number, kind, f"{kind}s")
        if number and self.pool is None:
            yield state("not running")

    def report(self) -> Report:
        """Where the time has gone since it was made."""
        return report_of(self)


def _at(places: OrderOf[int], order: OrderOf[int], in_order: bool) -> OrderOf[int]:
    """Those of ``places``, which may be more than a list can hold, that ``order`` names."""
    if isinstance(order, range):
        return places[order.start : order.stop]
    is_all = in_order and len(order) == len(places) and order == list(range(len(places)))
    return places if is_all else [places[index] for index in order]
