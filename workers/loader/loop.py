"""Runs the loop over a sequence: begins a pass over each epoch, and owns the pool of workers that compute batches."""

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
from workers.sequence.epoch_plan import EpochPlan
from workers.sequence.epochs import begin_epoch, plan_of_epoch
from workers.sequence.jobs import task_of
from workers.sequence.live import Live
from workers.sequence.passes import Pass, PassIterator, read_alone
from workers.sequence.position import Position

from .consumer import Consumer, Metadata
from .iterators import Iterators
from .loop_report import report_of, tally_of
from .max_failures import check_share
from .on_error import OnError
from .options import Options, options_of
from .pool import Pool
from .sources import FedPass
from .tensor_items import unpacked
from .tensors import Output

if TYPE_CHECKING:
    from workers.report.figures import Tally
    from workers.report.report import Report


class Loop(Live):
    """The machinery behind a for loop over a sequence: its passes, each a run over one epoch, and its pool of workers.

    The pool holds this loop's own workers, and also the workers of all front-ends (results of ``.map()``) that the
    sequence is made from.

    Args:
        sequence: the sequence to read: a front-end, or the argument of ``model.fit``. It is held weakly.
        nb_workers: the number of this loop's own workers; "auto" for as many as make the loop faster.
        options: the options of the workers; None to read them from the attributes of the front-end.
        clock: keeps the current epoch and the position in it; None to create a new clock.
        collate_fn: a function applied to each batch: the loop gets ``collate_fn(batch, source=sequence)``.

    Attributes:
        output: the framework whose tensors the loop gets instead of arrays; None for arrays.
        current: the pass that the workers work on; None if there is none.
        pool: the pool of workers; None if they are not running.
        iterator: a weak reference to the newest iterator over the loop; None if the pass is read without an iterator.
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
        check_share(options.max_failures, sequence)
        self.consumer = Consumer(OnError(options), collate_fn, self.figures.loop)
        self.pool: Pool | None = None
        self.current: Pass | None = None
        self.iterator: Callable[[], PassIterator | None] | None = None
        self.lock = threading.RLock()  # model.fit may read in another thread
        self._own_iterators = Iterators()
        self._last_chosen = 0  # workers of the last pool, when it was stopped

    @property
    def sequence(self) -> Any:
        return self._sequence()

    @property
    def options(self) -> Options:
        """The options for workers that are started from now on. Running workers keep their own options."""
        return self._options or options_of(self.sequence)

    # -- what it computes

    def task(self) -> Task:
        """Return the task that the workers run for each job: a source of items, and functions to apply to each."""
        task = task_of(self.sequence)
        if self.is_fed:
            task.source = None
            task.unpack = unpacked if self.keeps_tensors() else None
        task.worker_init_fn = self.options.worker_init_fn
        return task

    def task_here(self) -> Task:
        """Return the task for jobs that run in this process.

        The task may outlive the loop without keeping the sequence alive, because it holds the sequence weakly.
        """
        task = self.task()
        if task.source is self.sequence:
            task.source = weakref.proxy(task.source)
        return task

    @property
    def is_fed(self) -> bool:
        """True if the input of the jobs is read in this process and sent to the workers."""
        plan = self.sequence._plan()
        return bool(plan.is_read_here or plan.is_stream)

    def keeps_tensors(self) -> bool:
        """Return True if the mapped functions get the tensors of the source as tensors, not converted to arrays."""
        functions = self.sequence._plan().functions
        return bool(functions) and getattr(functions[0], "wants_tensors", True)

    def iterators(self) -> Iterators:
        """Return the record of the last iterator over the source, which all front-ends of a chain share."""
        return self._front_ends()[-1]._own_iterators

    def count_changes(self) -> int:
        """Return how often ``changed()`` was called on the sequence and on all sequences that it is made from."""
        return sum(each._clock.num_changes for each in parts_of(self.sequence) if isinstance(each, Sequence))

    # -- workers

    def _front_ends(self) -> list[Loop]:
        """Return this loop, then the loops of the front-ends (results of .map()) that its sequence is made from."""
        lives = [each._live for each in parts_of(self.sequence)[1:] if isinstance(each, Sequence)]
        return [self, *(each for each in lives if isinstance(each, Loop))]

    @property
    def num_workers(self) -> int:
        """The number of workers of this loop and of all front-ends that it is made from; "auto" counts as 0."""
        return sum(each.own_workers for each in self._front_ends() if each.own_workers != "auto")

    @property
    def is_auto(self) -> bool:
        """True if the number of workers is chosen by measurement: a front-end has "auto", none a number above 0."""
        return not self.num_workers and any(each.own_workers == "auto" for each in self._front_ends())

    @property
    def most_workers(self) -> int:
        return limits.cores() if self.is_auto else max(1, self.num_workers)

    @property
    def num_running(self) -> int:
        """The number of workers that run the loop's jobs now, or will run them once they are started.
        After the end of a pool whose number was chosen by measurement, it is that number."""
        pool = self.pool  # another thread may close it
        if pool is None:
            return self._last_chosen if self.is_auto else self.num_workers
        return pool.nb_workers

    def start(self) -> Pool:
        """Start the pool of workers, and return it.

        This pool also has the workers of the front-ends that the sequence is made from. So their own pools are stopped,
        except for pools that a loop is reading.
        """
        for each in self._front_ends()[1:]:
            each.stop_unless_read()
        nb_workers = None if self.is_auto else self.num_workers
        if nb_workers is None and self.is_fed:  # no measurement here: functions get workers from the start
            nb_workers = limits.default_nb_workers() if self.sequence._plan().functions else 0
        self.pool = Pool(self, nb_workers)
        return self.pool

    def stop_unless_read(self) -> None:
        """Stop this loop's workers until they are needed again, unless one of its passes is being read."""
        this_pass, is_held = self.current, self.iterator is None or self.iterator() is not None
        if this_pass is None or this_pass.is_over or not (is_held and self.clock.is_begun):
            self.stop()

    def stop(self) -> None:
        if self.pool is not None:
            self._last_chosen = self.pool.nb_workers
            self.pool.close()
        self.pool = self.current = None

    def close(self) -> None:
        """Stop the workers for good, and release the iterator over the source."""
        self.stop()
        self.iterators().release()

    # -- passes

    def begin(self) -> Pass:
        """Begin a pass over those batches of the current epoch that are not delivered yet, and return the pass."""
        self.current = None  # stops a thread that reads an earlier pass
        with self.lock:
            pool = self._running()
            plan, position, places = begin_epoch(self.sequence)
            return self._begun(pool, plan, position, places, plan.plan.assembly)

    def begin_apart(self, order: OrderOf[int] | None) -> Pass:
        """Begin and return a pass for ``model.fit``, which does not move the position that ``state_dict()`` saves.

        ``order`` lists the indices of its batches in the epoch; None to read all batches as they come.
        """
        self.current = None
        with self.lock:
            pool, plan = self._running(), plan_of_epoch(self.sequence, self.clock)
            position = Position(stride=plan.plan.world)
            places = plan.places(position) or ()
            if order is not None:
                places = _at(places, order, self.options.in_order)
            assembly = plan.plan.assembly if order is None else None
            return self._begun(pool, plan, position, places, assembly)

    def _running(self) -> Pool:
        self.sequence._check_open()
        return self.pool or self.start()  # no pool: a longer chain took the workers, or this is a copy

    def _begun(self, pool: Pool, plan: EpochPlan, position: Position, places: OrderOf[int], assembly: Any) -> Pass:
        self.consumer.metadata = Metadata()
        self.consumer.failures.begin()
        this_pass = self.current = pool.begin(plan, position, places, assembly)
        this_pass.yields = plan.plan.yields
        self.consumer.figures.begin(this_pass.epoch, *pool.begun)
        return this_pass

    def next(self, this_pass: Pass, timeout_s: float | None = None) -> Any:
        """Return the next batch of ``this_pass``; raise StopIteration after the last one, or after ``timeout_s``."""
        return read_alone(this_pass, self.consumer.next, self, this_pass, timeout_s)

    def next_items(self, this_pass: Pass, timeout_s: float, as_they_come: bool) -> list[Any]:
        """Return the items of the next job in a pass of ``model.fit``: see :meth:`Consumer.next_items`."""
        items: list[Any] = read_alone(this_pass, self.consumer.next_items, self, this_pass, timeout_s, as_they_come)
        return items

    def check(self, this_pass: Pass) -> None:
        """Raise an error if ``this_pass`` cannot go on.

        It is StopIteration after the last batch, ClosedError after close(), StalePassError if another pass has begun.
        """
        sequence = self.sequence
        this_pass.check(sequence)
        if self.current is not this_pass:
            raise StalePassError(
                f"this iterator over a {type(sequence).__name__} is over: its workers now serve something else, such "
                "as model.fit or a sequence made from it"
            )

    def is_source_at_end(self) -> bool:
        """Return True if the current pass reads a source in this process, and has delivered all items of the source."""
        return isinstance(self.current, FedPass) and self.current.is_at_end()

    # -- what it reports

    def share_waited(self) -> float | None:
        """Return the fraction (0 to 1) of the current pass's time that the loop has spent waiting for batches."""
        return self.consumer.metadata._share_waited()

    def facts(self) -> Iterable[DisplayedFact]:
        """Yield the facts about the workers that ``print()`` of the front-end shows, such as "4 workers"."""
        if self.is_auto:
            yield DisplayedFact("workers", "auto", "as many workers as pay")
            return
        number = self.num_workers
        kind = "thread" if number and self.options.executor == "thread" else "worker"
        yield count(number, kind, f"{kind}s")
        if number and self.pool is None:
            yield state("not running")

    def report(self) -> Report:
        """Return the report on where the loop's time has gone since it was made, such as waiting for batches."""
        return report_of(self)

    def tally(self) -> Tally:
        """Return what the loop has done since it was made, as sums, for ``figures()``."""
        return tally_of(self)


def _at(places: OrderOf[int], order: OrderOf[int], in_order: bool) -> OrderOf[int]:
    """Return the elements of ``places`` at the indices in ``order``, without making a list if that can be avoided."""
    if isinstance(order, range):
        return places[order.start : order.stop]
    is_all = in_order and len(order) == len(places) and order == list(range(len(places)))
    return places if is_all else [places[index] for index in order]
