"""The Keras-style base class ``Sequence``: a function of the index, and who iterates moves its epoch on."""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Callable, Iterator
from collections.abc import Sequence as OrderOf
from typing import TYPE_CHECKING, Any

from workers.batch.private import private
from workers.batch.tree import own
from workers.checks import check_index, check_int
from workers.engine.serial import SerialEngine
from workers.errors import ClosedError, StateError
from workers.for_keras.dataset import KerasDataset, is_keras_dataset
from workers.job import seeding
from workers.job.generators import Generators
from workers.job.task import Task, chain_of

from . import state
from .answers import HOOKS, Answers, is_default
from .chain import Batch_co, Chain
from .clock import Clock, asking, on_behalf_of, seed_of_chain
from .looks import SequenceLooks
from .order import ordered
from .passes import Pass, PassIterator, read_alone
from .position import Position

if TYPE_CHECKING:
    from typing_extensions import Self

    from workers.figures.report import Report

    from .progress import Progress

logger = logging.getLogger("workers")


class Sequence(SequenceLooks, Chain[Batch_co], Answers, KerasDataset):
    """Base of all sequences of batches.

    A subclass defines ``__len__`` (batches in an epoch) and ``__getitem__``. Random draws in them come from
    ``current_rng()`` or from ``random`` and ``numpy.random``, which are seeded for the batch before; so
    ``sequence[index]`` is the same batch whenever it is computed in the same epoch.

    A loop over it is one epoch; the next loop is the next one. A loop that was left in the middle ends its epoch when
    the next begins. What is made of it (``map``, ``batch``, ``prefetch``) counts its own epochs.

    Where Keras is loaded, it is a ``keras.utils.PyDataset``: ``model.fit(sequence)`` computes its batches in worker
    processes, which stay until :meth:`close` or until nobody holds the sequence any more. An epoch is then one pass
    over the sequence; with ``fit(steps_per_epoch=...)`` it may take several of Keras's.

    Args:
        seed: what all random draws depend on; None: drawn once, kept in ``seed``, and logged.

    Source: ``keras.utils.Sequence`` for what a subclass defines, ``trw.train.Sequence`` for the chain.
    """

    def __init__(self, *, seed: int | None = None) -> None:
        if seed is not None:
            self.seed = seed
        elif seeding.current_stream() is not None:  # a job makes it
            self.__dict__["_sequence_seed"] = seeding.draw_seed()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Also those of bases that know nothing of us. What PyDataset itself defines says nothing.
        for name in ("__getitem__", *HOOKS):
            of = next(each for each in cls.__mro__ if name in each.__dict__ and not is_keras_dataset(each))
            method = of.__dict__[name]
            if name == "__getitem__" and not hasattr(method, "_is_job"):
                method = _as_job(method)
            if getattr(cls, name) is not method:
                setattr(cls, name, method)

    def __getitem__(self, index: int) -> Batch_co:
        """Batch ``index`` of the current epoch."""
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__")

    @is_default
    def on_epoch_begin(self) -> None:
        """Called in the consumer's process before each epoch. What it changes here is seen by all of the epoch."""

    @is_default
    def on_epoch_end(self) -> None:
        """Called in the consumer's process after each epoch. What it changes here is seen by all of the next."""

    # -- seed and epoch. All is made when first asked for, so that a subclass need not call our __init__.

    @property
    def seed(self) -> int:
        """What all random draws depend on. May be set before anything was drawn.

        Without one of its own, that of the chain: in a job or a hook, the seed that was given to what was made of this.
        """
        given: int | None = self.__dict__.get("_given_seed")
        if given is None:
            given = seed_of_chain(self)
        if given is not None:
            return given
        seed: int | None = self.__dict__.get("_sequence_seed")
        if seed is None:
            stream = seeding.current_stream()
            if stream is not None:  # not kept: each process would keep that of another job
                return stream.seed_of_held(type(self).__qualname__)
            seed = self.__dict__["_sequence_seed"] = seeding.draw_seed()
            logger.info("%s draws from seed %d", type(self).__name__, seed)
        return seed

    @seed.setter
    def seed(self, seed: int) -> None:
        self.__dict__["_given_seed"] = seeding.check_seed(seed)

    @property
    def epoch(self) -> int:
        """The current epoch, from 0: of its own loops, and of ``model.fit``. Inside a job or a hook: of that."""
        job = seeding.current_job()
        return (asking() or self._clock).epoch if job is None else job.epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        (asking() or self._clock).set_epoch(check_int("epoch", epoch, 0))

    @property
    def _clock(self) -> Clock:
        # Not by attribute: a class may pass on unknown ones to another sequence.
        clock: Clock | None = self.__dict__.get("_own_clock")
        if clock is None:
            clock = self.__dict__["_own_clock"] = Clock()
            clock.owner = weakref.ref(self)
        return clock

    # -- loops

    def __iter__(self) -> Iterator[Batch_co]:
        """Begin a pass over what is left of the current epoch."""
        return PassIterator(self, self._begin_pass())

    def progress(self, **tqdm_options: Any) -> Progress[Batch_co]:
        """Begin such a pass, which shows how far it is: ``for batch in sequence.progress(): ...``.

        A bar of tqdm, with batches/s and, of a front-end, the part of the time that the loop has waited for batches
        ("waits 3 %"). It knows the length, and begins where a state was loaded. It shows nothing where stderr is no
        terminal, but in a notebook it does. What is returned is an iterator like that of ``iter()``, and the bar:
        ``set_postfix(loss=...)``, ``set_description(...)`` are tqdm's.

        Args:
            **tqdm_options: ``desc``, ``leave``, ``disable``, ... as for ``tqdm.tqdm``; they take the place of ours.

        Raises:
            TypeError: an option is none of tqdm's.
        """
        from .progress import Progress

        return Progress(self, tqdm_options)

    def _begin_pass(self) -> Pass:
        clock = self._clock
        position, places = self._begin_epoch()
        engine = SerialEngine(self._task())
        order = ordered(places, on_behalf_of(clock, self._permutations, clock.epoch))
        reading = engine.begin(clock.epoch, len(order), False, None, None, order)
        return Pass(reading, clock, position, places, order, self._groups())

    def _begin_epoch(self) -> tuple[Position, OrderOf[int]]:
        """(the position of a pass that begins now, the places that are left to it)."""
        self._check_open()
        clock = self._clock
        self._generators.look_first()  # before a hook can draw from them
        if clock.is_begun:
            clock.end_epoch(self)
        while True:
            clock.begin_epoch(self)
            position = clock.begin_pass(self._stride)
            places = on_behalf_of(clock, self._places, position)
            if places is None or len(places) or position.is_at_start:
                return position, places or ()
            clock.end_epoch(self)  # what is left does not suffice for all shards

    def _next_of(self, begun: Pass) -> Any:
        """The next batch of a pass over this."""
        return read_alone(begun, begun.next, self)

    # -- jobs

    def _task(self) -> Task:
        """What workers do for it."""
        source, functions, as_items = self._jobs()
        task = Task(source, functions, self.seed, as_items)
        task.history, task.private = self._generators.history, private
        return task

    @property
    def _generators(self) -> Generators:
        """The random generators that it holds."""
        generators: Generators | None = self.__dict__.get("_held")
        if generators is None:
            of = weakref.ref(self)  # no cycle: it goes, with its workers, with the last reference

            def roots() -> list[tuple[str, Any]]:
                source, functions, _ = of()._jobs()  # type: ignore[union-attr]
                return [("source", source), *([("functions", functions)] if functions else [])]

            generators = self.__dict__["_held"] = Generators(roots)
        return generators

    def _run_job(self, index: int, compute: Any, epoch: int | None = None, seed: int | None = None) -> Any:
        """``compute()``, as job ``index`` of ``epoch`` and ``seed``; None: of the current ones."""
        epoch, seed = self._clock.epoch if epoch is None else epoch, self.seed if seed is None else seed
        stream, job = seeding.Stream(seed, self._generators, chain_of(self)), seeding.Job(epoch, index)
        return seeding.run_job(stream, job, lambda: own(compute(), self._makes_fresh_batches), self._may_draw())

    def report(self) -> Report:
        """Where the time goes, or has gone, in ``model.fit`` of this sequence: see :class:`workers.Report`.

        Raises:
            StateError: there was none. Loops over it have no figures; those over ``sequence.prefetch()`` have.
        """
        front = self.__dict__.get("_fit")
        if front is None:
            name = type(self).__name__
            raise StateError(f"no model.fit has read this {name}: report() is of that, and of loops over .prefetch()")
        report: Report = front.report()
        return report

    # -- states

    def state_dict(self) -> dict[str, Any]:
        """Where its loop stands: what was delivered of which epoch. Plain JSON, in no time, at any step.

        The same for any number of workers; in ``model.fit``, the beginning of the epoch. A copy or a pickle of a
        sequence begins anew: take the state along.
        """
        self._check_open()
        clock = self._clock
        epoch, position = clock.epoch, clock.position
        batch, partial, _ = position.delivered
        length = on_behalf_of(clock, self._length_of_epoch)
        if partial is None and batch and on_behalf_of(clock, self._is_at_end, batch):
            epoch, position = epoch + 1, Position()
        return state.written(state.State(*state.named(state.identity_of(self)), self.seed, length, epoch, position))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken: the batches are those that would have followed, byte for byte.

        It takes effect when the next loop begins; one that is being read is over. ``on_epoch_begin`` and
        ``on_epoch_end``, where they are defined, are called for the epochs in between, 100,000 at most.

        Raises:
            TypeError, StateError (a ValueError): it is no state, or one of another sequence, length or seed.
        """
        self._check_open()
        if seeding.current_job() is not None:
            raise StateError("a state cannot be loaded within a job, or within on_epoch_begin or on_epoch_end")
        self._generators.look_first()  # before a hook can draw from them
        on_behalf_of(self._clock, state.load, self, state.read(state_dict))

    # -- the end

    def changed(self) -> None:
        """Say that something has changed which is not seen by itself: all jobs of the next epoch will see it.

        Seen are, at the beginning of each epoch: attributes that are set anew, and what changes in small objects, in
        containers of numbers and strings, and, where hooks are defined, in anything. Not seen without hooks: what is
        written between epochs into a large array, a shared one, a memmap, a file or, not by torch, a large tensor, and
        what changes in items of a large container. Workers keep what they hold, but for attributes that have changed.
        """
        self._clock.num_changes += 1

    def _count_changes(self) -> int:
        """How often :meth:`changed` was called in the chain up to here."""
        return self._clock.num_changes

    def close(self) -> None:
        """Let go of everything. May be repeated; what comes after raises ClosedError."""
        self._close_for_keras()
        self._clock.close()

    def _check_open(self) -> None:
        if self._clock.is_closed:
            raise ClosedError(f"this {type(self).__name__} was closed; make a new one")

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _as_job(getitem: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """``__getitem__`` of a subclass, such that a call from outside of a job is one."""

    @functools.wraps(getitem)
    def __getitem__(self: Sequence, index: Any) -> Any:
        if seeding.current_job() is not None:
            return getitem(self, index)
        self._check_open()
        checked = check_index(index, self)
        job = self._job_at(checked) if self._has_jobs_of_others else checked
        return self._run_job(job, functools.partial(getitem, self, checked))

    __getitem__._is_job = True  # type: ignore[attr-defined]
    return __getitem__
