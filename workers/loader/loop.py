"""The loop over a sequence whose batches are computed by workers: its passes and its pool."""

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

    The pool has the workers of this loop, and those of all front-ends that the sequence is made from.

    Args:
        sequence: what is iterated: a front-end, or the argument of ``model.fit``.
        nb_workers: this loop's own workers; "auto": as many as pay.
        options: how they work; None: as the attributes of the front-end say.
        collate_fn: the loop gets ``collate_fn(batch, source=sequence)``.

    Attributes:
        output: the tensors that the loop gets instead of arrays; None: arrays.
        current: the pass that the workers work on; None: none.
        pool: None: its workers are not running.
        iterator: a weak reference to what ``iter()`` returned last.
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
        self.lock = threading.RLock()  # model.fit may read in another thread
        self._own_iterators = Iterators()

    @property
    def sequence(self) -> Any:
        return self._sequence()

    @property
    def options(self) -> Options:
        """The options of its workers. Running workers keep those that they were started with."""
        return self._options or options_of(self.sequence)

    # -- what it computes

    def task(self) -> Task:
        """Return the task of its workers."""
        task = task_of(self.sequence)
        if self.is_fed:
            task.source = None
            task.unpack = unpacked if self.keeps_tensors() else None
        task.worker_init_fn = self.options.worker_init_fn
        return task

    def task_here(self) -> Task:
        """Return the task of jobs in this process. It may outlive the loop, so it does not keep the sequence alive."""
        task = self.task()
        if task.source is self.sequence:
            task.source = weakref.proxy(task.source)
        return task

    @property
    def is_fed(self) -> bool:
        """True if the input of its jobs is read here and sent to the workers."""
        plan = self.sequence._plan()
        return bool(plan.is_read_here or plan.is_stream)

    def keeps_tensors(self) -> bool:
        """Return True if the functions get the tensors of what is read here, not arrays made of them."""
        functions = self.sequence._plan().functions
        return bool(functions) and getattr(functions[0], "wants_tensors", True)

    def iterators(self) -> Iterators:
        """Return the iterators over the source, which everything made from the same front-end shares."""
        return self._front_ends()[-1]._own_iterators

    def count_changes(self) -> int:
        """Return how often ``changed()`` was called in the chain up to here."""
        return sum(each._clock.num_changes for each in parts_of(self.sequence) if isinstance(each, Sequence))

    # -- workers

    def _front_ends(self) -> list[Loop]:
        """Return this loop, and those of the front-ends that the sequence is made from."""
        lives = [each._live for each in parts_of(self.sequence)[1:] if isinstance(each, Sequence)]
        return [self, *(each for each in lives if isinstance(each, Loop))]

    @property
    def num_workers(self) -> int:
        """The number of workers in the chain up to here, without ``"auto"``."""
        return sum(each.own_workers for each in self._front_ends() if each.own_workers != "auto")

    @property
    def is_auto(self) -> bool:
        """True if it uses as many workers as pay: ``"auto"`` is in the chain, and no number of workers."""
        return not self.num_workers and any(each.own_workers == "auto" for each in self._front_ends())

    @property
    def most_workers(self) -> int:
        return limits.cores() if self.is_auto else max(1, self.num_workers)

    @property
    def num_running(self) -> int:
        """The number of workers that run its jobs, or will once they are started."""
        return self.num_workers if self.pool is None else self.pool.nb_workers

    def start(self) -> Pool:
        """Start the workers. The front-ends that this is made from stop theirs, which are part of this pool."""
        for each in self._front_ends()[1:]:
            each.stop_unless_read()
        nb_workers = None if self.is_auto else self.num_workers
        if nb_workers is None and self.is_fed:  # functions get workers from the start
            nb_workers = limits.default_nb_workers() if self.sequence._plan().functions else 0
        self.pool = Pool(self, nb_workers)
        return self.pool

    def stop_unless_read(self) -> None:
        """Stop the workers until they are needed again, unless a pass over this is being read."""
        this_pass, is_held = self.current, self.iterator is None or self.iterator() is not None
        if this_pass is None or this_pass.is_over or not (is_held and self.clock.is_begun):
            self.stop()

    def stop(self) -> None:
        if self.pool is not None:
            self.pool.close()
        self.pool = self.current = None

    def close(self) -> None:
        """Stop the workers for good."""
        self.stop()
        self.iterators().release()

    # -- passes

    def begin(self) -> Pass:
        """Begin a pass over the rest of the current epoch."""
        self.current = None  # stops a thread that reads an earlier pass
        with self.lock:
            pool = self._running()
            plan, position, places = begin_epoch(self.sequence)
            return self._begun(pool, plan, position, places, plan.plan.assembly)

    def begin_apart(self, order: OrderOf[int] | None) -> Pass:
        """Begin a pass that states do not count, over the batches at ``order`` of the epoch: see ``for_keras``."""
        self.current = None
        with self.lock:
            pool, plan = self._running(), plan_of_epoch(self.sequence, self.clock)
            position = Position(stride=plan.plan.world)
            places = plan.places(position) or ()
            if order is not None:  # else all that come from a source that is read here
                places = _at(places, order, self.options.in_order)
            return self._begun(pool, plan, position, places, None)

    def _running(self) -> Pool:
        self.sequence._check_open()
        return self.pool or self.start()  # None: a longer chain took its workers, or this is a copy

    def _begun(self, pool: Pool, plan: EpochPlan, position: Position, places: OrderOf[int], assembly: Any) -> Pass:
        self.consumer.metadata = Metadata()
        this_pass = self.current = pool.begin(plan, position, places, assembly)
        self.consumer.figures.begin(this_pass.epoch, *pool.begun)
        return this_pass

    def next(self, this_pass: Pass, timeout_s: float | None = None) -> Any:
        """Return the next batch of a pass."""
        return read_alone(this_pass, self.consumer.next, self, this_pass, timeout_s)

    def next_items(self, this_pass: Pass, timeout_s: float) -> list[Any]:
        """Return all items of the next job of a pass that states do not count."""
        items: list[Any] = read_alone(this_pass, self.consumer.next_items, self, this_pass, timeout_s)
        return items

    def check(self, this_pass: Pass) -> None:
        """Raise StopIteration, ClosedError or StalePassError if no more can be read of a pass."""
        sequence = self.sequence
        this_pass.check(sequence)
        if self.current is not this_pass:
            raise StalePassError(
                f"this iterator over a {type(sequence).__name__} is over: its workers now serve something else, such "
                "as model.fit or a sequence made from it"
            )

    def is_source_at_end(self) -> bool:
        """Return True if the current pass has taken all items of a source that is read here."""
        return isinstance(self.current, FedPass) and self.current.is_at_end()

    # -- what it reports

    def share_waited(self) -> float | None:
        """Return the share of the pass that the loop has waited for batches, 0 to 1."""
        return self.consumer.metadata._share_waited()

    def facts(self) -> Iterable[DisplayedFact]:
        """Yield what is shown of its workers."""
        if self.is_auto:
            yield DisplayedFact("workers", "auto", "as many workers as pay")
            return
        number = self.num_workers
        kind = "thread" if number and self.options.executor == "thread" else "worker"
        yield count(number, kind, f"{kind}s")
        if number and self.pool is None:
            yield state("not running")

    def report(self) -> Report:
        """Return where the time has gone since the loop was made."""
        return report_of(self)


def _at(places: OrderOf[int], order: OrderOf[int], in_order: bool) -> OrderOf[int]:
    """Return the elements of ``places``, which may be too many for a list, at the indices in ``order``."""
    if isinstance(order, range):
        return places[order.start : order.stop]
    is_all = in_order and len(order) == len(places) and order == list(range(len(places)))
    return places if is_all else [places[index] for index in order]
