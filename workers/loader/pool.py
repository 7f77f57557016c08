"""Runs the workers of one loop, and sends them the sequence, pickled into shared memory as a parcel."""

from __future__ import annotations

import errno
import functools
import logging
import time
import weakref
from collections.abc import Callable
from collections.abc import Sequence as OrderOf
from typing import TYPE_CHECKING, Any

from workers import limits
from workers.batch.memory_limit import DoesNotFit
from workers.checks import short
from workers.engine import engine as engines
from workers.engine.auto import AutoEngine
from workers.engine.bounds import BUNDLE_NS, FAR_BUNDLE_NS
from workers.engine.engine import Engine, Reading
from workers.engine.executor import Executor
from workers.engine.explanations import given_up, too_few_processes
from workers.engine.passes import Ahead
from workers.engine.protocols import AnyEngine
from workers.engine.publishing import Publisher
from workers.engine.schedule import Schedule
from workers.engine.serial import SerialEngine, SerialReading
from workers.engine.threads import ThreadExecutor
from workers.errors import PlatformError
from workers.job.task import Task
from workers.process.change_detector import ChangeDetector
from workers.process.changed_attributes import Attributes
from workers.process.replica import Parcel
from workers.process.unpicklable_attributes import UnpicklableAttributes
from workers.report.units import count
from workers.sequence.base import Sequence
from workers.sequence.derived import parts_of
from workers.sequence.epoch_plan import EpochPlan
from workers.sequence.grouping import Assembly
from workers.sequence.passes import Pass
from workers.sequence.position import Position

if TYPE_CHECKING:
    from workers.cluster.executor import RayExecutor
    from workers.process.executor import ProcessExecutor

    from .loop import Loop

from .sources import FedPass, IteratorSource, Source, StreamSource

logger = logging.getLogger("workers")


class Pool:
    """The workers of ``loop``, and the engine that gives them jobs. Workers stop when the loop's sequence is freed.

    Args:
        nb_workers: the number of workers; 0 to compute batches in this process; None to choose it by measurement.

    Attributes:
        begun: (seconds, why): how long it took to begin the last pass, a run of the loop over an epoch, and why.
    """

    def __init__(self, loop: Loop, nb_workers: int | None) -> None:
        options, figures = loop.options, loop.figures
        self.engine: AnyEngine
        self.begun = (0.0, "")
        self._loop = weakref.ref(loop)
        self._options = options
        self._nb_workers = nb_workers or 0
        self._figures = figures
        self._parcel: Parcel | None = None  # what the workers have; None if they use this process's objects
        self._watch = ChangeDetector()
        self._attributes = Attributes(self._watch)
        self._unpicklable_attributes = UnpicklableAttributes()
        self._num_passes = 0
        self._sent_in = 0  # the number of the pass in which the workers were last sent a parcel
        self._num_changes = self._num_changes_now = 0  # calls of changed() until that pass, and until now
        self._has_changed_there = False  # shared arrays have changed, and remote workers need them again
        self._changed_in = 0  # the number of the last pass, but for the first, at whose start the sequence had changed
        self._why = ""  # why the next pass takes time to begin
        self._workers: Engine | None = None
        loop.generators.look_first()  # before a hook or the loop can draw from them
        self.kind = options.executor
        if nb_workers == 0:
            self.engine = SerialEngine(loop.task(), figures.pool)
        elif nb_workers is None:
            self._unpicklable_attributes.remember(loop.task().source)
            least = options.least_workers
            cores: Callable[[], int] = limits.cores
            most: Callable[[], int] | None = None
            if options.executor == "ray":
                cores, most = _of_cluster(options.executor_options or {})
            task = loop.task_here()
            self.engine = AutoEngine(task, figures, least, weakref.proxy(self), cores, most)
        else:
            self.engine = self._start(nb_workers)
            self._why = f"{count(nb_workers, 'worker')} had to be started"

    @property
    def nb_workers(self) -> int:
        """The number of workers that run the pool's jobs now."""
        return self.engine.nb_workers if isinstance(self.engine, AutoEngine) else self._nb_workers

    # -- workers

    def _start(self, nb_workers: int) -> Engine:
        loop, options = self._loop(), self._options
        assert loop is not None
        schedule = Schedule(
            nb_workers,
            options.max_queue_size,
            options.in_order,
            options.max_retries + 1,
            explain=given_up,
            keeps_failed=options.may_retry,
            # Within a bundle, it is unknown which job takes long, so job_timeout needs small bundles.
            bundle_ns=FAR_BUNDLE_NS if self.kind == "ray" and options.job_timeout is None else BUNDLE_NS,
        )
        try:
            publisher = functools.partial(Publisher, figures=self._figures, name=_name(loop), kind=self.kind)
            self._num_changes = self._num_changes_now = loop.count_changes()
            executor = self._executor(loop.task(), nb_workers, loop.sequence._has_hooks())
            engine = Engine(executor, schedule, options, publisher)
        except DoesNotFit as error:
            raise _no_room(error) from error
        except OSError as error:
            raise _explained(error, nb_workers) from error
        self._finalizer = weakref.finalize(loop.sequence, engine.close)
        self._workers, self._sent_in = engine, self._num_passes
        engines.watch_for_exit()
        logger.debug("%s started with %d workers", type(loop.sequence).__name__, nb_workers)
        return engine

    def _executor(self, task: Task, nb_workers: int, has_hooks: bool) -> Executor:
        if self.kind == "thread":
            return ThreadExecutor(task, nb_workers, self._figures.pool)
        for part in parts_of(task.source):
            if isinstance(part, Sequence):
                part._share()
        self._watch.has_changed(task, False)
        pickled = self._unpicklable_attributes.first(task, "the sequence")
        self._watch.commit()
        executor: ProcessExecutor | RayExecutor
        if self.kind == "ray":
            from workers.cluster.executor import RayExecutor

            options = self._options.executor_options or {}
            executor = RayExecutor(nb_workers, lambda: Parcel(pickled), options, self._figures.pool)
        else:
            from workers.process.executor import ProcessExecutor

            executor = ProcessExecutor(nb_workers, lambda: Parcel(pickled), pickled.modules, self._figures.pool)
            self._attributes.changed(task, has_hooks, self._unpicklable_attributes.states())  # while the server starts
            self._attributes.commit()
        self._parcel = executor.parcel
        return executor

    # -- workers that come and go: see ``auto``

    def have(self, nb_workers: int) -> Engine:
        """Start ``nb_workers`` workers, or resize the running pool to this. Return the engine that gives them jobs."""
        if self._workers is None:
            return self._start(nb_workers)
        self._workers.resize(nb_workers)
        return self._workers

    def changes(self) -> Parcel | None:
        """Return the parcel that workers must load to compute the rest of this pass; None if they need none."""
        loop = self._loop()
        if loop is None or self._sent_in == self._num_passes:
            return None
        return self._parcel_to_send(loop)

    # -- the sequence that they work on

    def _parcel_to_send(self, loop: Loop) -> Parcel | None:
        """Return the parcel to send to the workers at the start of an epoch; None if the sequence has not changed.

        If the user has called ``changed()``, discard the batches that were computed ahead.
        """
        if self._parcel is None:  # jobs run on the user's own objects, and never ahead
            return None
        task, has_hooks, start_s = loop.task(), loop.sequence._has_hooks(), time.monotonic()
        self._num_changes_now = loop.count_changes()
        is_said = self._num_changes_now != self._num_changes
        if is_said and self._workers is not None:
            self._workers.revoke()
        has_changed_there = (has_hooks or is_said) and self._has_changed_in_place()
        may_have_changed = self._watch.has_changed(task, has_hooks, self._unpicklable_attributes.states())
        if not (may_have_changed or is_said):
            return self._parcel if has_changed_there else None
        pickled = self._unpicklable_attributes.pickled(task, "the sequence", self._parcel)
        is_same, same = self._parcel.compare(pickled)
        if is_same:
            if not is_said:
                self._watch.tell_if_long(task, has_hooks, time.monotonic() - start_s)
            return self._parcel if has_changed_there else None
        changed = "the sequence had changed, and was sent to the workers again"
        self._why = f"{self._why}; {changed}" if self._why else changed
        self._changed_in = self._num_passes if self._num_passes > 1 else 0
        try:
            parcel = Parcel(pickled, self._parcel, same)
        except DoesNotFit as error:
            raise _no_room(error) from error
        parcel.changed = self._attributes.changed(task, has_hooks, self._unpicklable_attributes.states())
        return parcel

    def _looks_ahead(self) -> bool:
        """Return True if the next epoch may begin before this one ends. If the sequence has changed lately, it will
        probably change again, and jobs done ahead would be wasted."""
        return not self._changed_in or self._num_passes > self._changed_in + 1

    def _has_changed_in_place(self) -> bool:
        """Return True if shared arrays have changed in place, so that they must be sent to other machines again."""
        if self.kind != "ray" or self._workers is None:
            return False
        executor: Any = self._workers.executor
        self._has_changed_there |= executor.has_changed_in_place()  # reports each change only once
        return self._has_changed_there

    def sent(self, parcel: Parcel | None) -> None:
        """Record that the engine has received ``parcel``. If a Ctrl-C prevents this, the changes are sent again."""
        self._parcel, self._sent_in = parcel or self._parcel, self._num_passes
        self._num_changes, self._has_changed_there = self._num_changes_now, False
        self._watch.commit()
        if parcel is not None:
            self._attributes.commit()

    # -- passes

    def begin(self, plan: EpochPlan, position: Position, places: OrderOf[int], assembly: Assembly | None) -> Pass:
        """Begin a pass over the batches at ``places`` (numbers in the epoch's order), and return it."""
        start_s = time.monotonic()
        this_pass = self._begin(plan, position, places, assembly)
        self.begun = time.monotonic() - start_s, self._why
        self._why = ""
        return this_pass

    def _begin(self, plan: EpochPlan, position: Position, places: OrderOf[int], assembly: Assembly | None) -> Pass:
        loop, engine, epoch = self._loop(), self.engine, plan.epoch
        assert loop is not None
        self._num_passes += 1
        parcel: Parcel | None = None
        is_auto = isinstance(engine, AutoEngine)  # asks for changes() itself, when it has workers
        if not is_auto:
            parcel = self._parcel_to_send(loop)
        if plan.plan.is_read_here or plan.plan.is_stream:
            source = self._source(loop, plan, position, places)
            reading = engine.begin(epoch, 0, True, None, parcel, [])
            self.sent(parcel)
            # Not an AutoReading: a source that is read here has workers from the start, or none.
            assert isinstance(reading, (Reading, SerialReading))
            return FedPass(reading, loop.clock, position, source, assembly, self._figures.loop)
        following: OrderOf[int] = plan.places(Position(stride=position.stride)) or ()
        order: OrderOf[int] | None = plan.order(places)
        if assembly is None and isinstance(order, range) and order == following and position.stride == 1:
            order = None  # lets in_order=False deliver batches as they come
        ahead: Ahead | None = None
        if (
            self._looks_ahead()
            and not loop.sequence._has_hooks()  # hooks may write anywhere, even to files, so they run first
            and not plan.plan.drawn
            and self._options.executor != "thread"  # jobs run on the user's own object, which has one epoch
            and not (isinstance(places, list) and position.is_at_start)
        ):
            next_order = None if order is None else plan.following().order(following)
            ahead = epoch + 1, len(following), next_order
        reading = engine.begin(epoch, len(places), False, ahead, parcel, order)
        if not is_auto:
            self.sent(parcel)
        if order is None and self._options.in_order:
            order = places
        return Pass(reading, loop.clock, position, places, order, assembly)

    def _source(self, loop: Loop, plan: EpochPlan, position: Position, places: OrderOf[int]) -> Source:
        source, seed = plan.plan.source, loop.sequence.seed
        if plan.plan.is_stream:
            is_sent = self.kind == "process" and self._nb_workers > 0
            return StreamSource(source, seed, plan.epoch, places, is_sent)
        copies = self.kind == "thread"  # the source may reuse its memory while a job reads the item
        return IteratorSource(source, loop.iterators(), position, plan.epoch, seed, loop.keeps_tensors(), copies)

    def close(self) -> None:
        """Stop the workers. May be called again."""
        self.engine.close()
        self._end_workers()

    def _end_workers(self) -> None:
        workers, self._workers, self._parcel = self._workers, None, None
        if workers is not None:
            workers.close()
            self._finalizer.detach()


def _of_cluster(options: dict[str, Any]) -> tuple[Callable[[], int], Callable[[], int]]:
    """Connect to a Ray cluster. Return two functions: one counts its cores, the other the workers that fit into it."""
    from workers.cluster import connection

    connection.connect(options.get("address"))
    return connection.cores, functools.partial(connection.room, options)


def _name(loop: Loop) -> str:
    """Return a short description of what the loop computes, for ``workers.top``, e.g. "<Crops: 40 batches>"."""
    sequence = loop.sequence
    return short(getattr(sequence, "source_split", sequence))


def _no_room(error: DoesNotFit) -> MemoryError:
    """Return the error to raise if the sequence does not fit into shared memory. It gives advice."""
    return MemoryError(
        "the large arrays of the sequence are copied into shared memory, which all workers read, but there is no "
        f"room for a second copy: {error}. Create such an array in shared memory: array = "
        "workers.share(np.zeros(shape, dtype)), and then fill it; or read its file with np.load(path, mmap_mode="
        '"r"); or use executor="thread" or nb_workers=0'
    )


def _explained(error: OSError, nb_workers: int) -> Exception:
    if error.errno in (errno.EAGAIN, errno.ENOMEM):
        return too_few_processes(f"{nb_workers} workers cannot be started", str(error))
    if error.errno not in (errno.EMFILE, errno.ENFILE):
        return error
    return PlatformError(
        error.errno,
        f"{nb_workers} workers cannot be started: all {limits.descriptors()} file descriptors (ulimit -n) are in "
        "use; each worker needs two, and the pool a few more",
    )
