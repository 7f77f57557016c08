"""The Keras-style base class ``Sequence``, and the chain that is built from it.

A Sequence is a function of the index: ``sequence[index]`` computes batch ``index`` of the current epoch from
scratch. Whoever iterates moves the epoch on; a pass that was left in the middle ends its epoch when the next begins.
In ``model.fit`` it is Keras who iterates: see ``keras_dataset``.
"""

from __future__ import annotations

import functools
import logging
import weakref
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from workers.batch.tree import own
from workers.checks import check_index, check_int
from workers.errors import ClosedError, NotPicklableError, PlatformError, StateError
from workers.for_keras.dataset import KerasDataset, is_called_by_keras, is_keras_dataset
from workers.job import seeding
from workers.job.generators import Generators

from . import state as resume
from .loop import Loop
from .state import Place, Progress

if TYPE_CHECKING:
    from typing_extensions import Self

    from workers.loader.sequence_map import SequenceMap

logger = logging.getLogger("workers")


_OURS = "_is_wrapped_by_sequence"
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _mark(function: _Function) -> _Function:
    setattr(function, _OURS, True)
    return function


def _as_hook(method: Callable[[Any], None], of_keras: Callable[[Any], None]) -> Callable[[Any], None]:
    """A method that Keras calls, too often and too early: such that a call of Keras's does ``of_keras``, which knows
    when it is meant."""

    @functools.wraps(method)
    def hook(self: Sequence, *args: Any, **kwargs: Any) -> None:
        if is_called_by_keras() and self._keras_use.thread is not None:
            of_keras(self)
        else:
            method(self, *args, **kwargs)

    return _mark(hook)


_KERAS_HOOKS = {"on_epoch_begin": KerasDataset._keras_epoch_begin, "on_epoch_end": KerasDataset._keras_epoch_end}


class Sequence(KerasDataset):
    """Base of all sequences of batches.

    A subclass defines ``__len__`` (batches in an epoch) and ``__getitem__``. Random draws in them come from
    ``current_rng()`` or from ``random`` and ``numpy.random``, which are seeded for the batch before; so
    ``sequence[index]`` is the same batch whenever it is computed in the same epoch.

    Where Keras is loaded, it is a ``keras.utils.PyDataset``: ``model.fit(sequence)`` computes its batches in worker
    processes, which stay until :meth:`close` or until nobody holds the sequence any more. An epoch is then one pass
    over the sequence; with ``fit(steps_per_epoch=...)`` it may take several of Keras's.

    Args:
        seed: what all random draws depend on; None: drawn once, kept in ``seed``, and logged.

    Source: ``keras.utils.Sequence`` for what a subclass defines, ``trw.train.Sequence`` for the chain.
    """

    def __init__(self, *, seed: int | None = None) -> None:
        seed = seeding.check_seed(seed)
        if seed is not None:
            self.__dict__["_sequence_seed"] = seed

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Also those of bases that know nothing of us. What PyDataset itself defines says nothing.
        for name in ("__getitem__", *_KERAS_HOOKS):
            of = next(each for each in cls.__mro__ if name in each.__dict__ and not is_keras_dataset(each))
            method = of.__dict__[name]
            if not getattr(method, _OURS, False):
                setattr(cls, name, _as_hook(method, _KERAS_HOOKS[name]) if name in _KERAS_HOOKS else _as_job(method))
            elif getattr(cls, name) is not method:
                setattr(cls, name, method)
        for name in ("workers", "num_batches", "use_multiprocessing", "max_queue_size"):
            if any(is_keras_dataset(each) for each in cls.__mro__):
                setattr(cls, name, KerasDataset.__dict__[name])

    @abstractmethod
    def __len__(self) -> int:
        """Batches in an epoch."""
        raise NotImplementedError(f"{type(self).__name__} must define __len__")

    def __getitem__(self, index: int) -> Any:
        """Batch ``index`` of the current epoch."""
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__")

    def on_epoch_begin(self) -> None:
        """Called in the consumer's process before each epoch. What it changes here is seen by all of the epoch."""

    def on_epoch_end(self) -> None:
        """Called in the consumer's process after each epoch. What it changes here is seen by all of the next."""

    def _may_draw(self) -> bool:
        """Whether its batches may depend on ``random`` or ``numpy.random``, which then are seeded."""
        return True

    # -- where it stands

    # All made when first asked for, so that a subclass need not call our __init__.

    @property
    def _progress(self) -> Progress:
        # Not by attribute: a class may pass on unknown ones to another sequence.
        position: Progress | None = self.__dict__.get("_position")
        if position is None:
            position = self.__dict__["_position"] = Progress()
        return position

    @property
    def seed(self) -> int:
        """What all random draws depend on."""
        seed: int | None = self.__dict__.get("_sequence_seed")
        if seed is None:
            seed = self.__dict__["_sequence_seed"] = seeding.draw_seed()
            logger.info("%s draws from seed %d", type(self).__name__, seed)
        return seed

    @property
    def epoch(self) -> int:
        """The current epoch, from 0. Inside a job: the job's."""
        job = seeding.current_job()
        return self._progress.epoch if job is None else job.epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        progress = self._progress
        progress.stand_at(check_int("epoch", epoch, 0), Place())
        progress.announced = -1

    def __iter__(self) -> Iterator[Any]:
        """One pass over the batches of an epoch."""
        self._check_open()
        self._keras_use.begin_loop()
        self._end_abandoned_epoch()
        return Loop(self)

    def _begin_loop(self) -> tuple[Place, Any]:
        """(where a loop stands that begins now, what is :meth:`_left` to it)."""
        progress = self._progress
        self._begin_epoch()
        place = progress.begin_loop(self._unit(), self._step)
        left = self._left(place)
        if left == [] and not place.is_at_start:  # such as those that do not suffice for all shards
            self._end_epoch()
            self._begin_epoch()
            place = progress.begin_loop(self._unit(), self._step)
            left = self._left(place)
        return place, left

    #: How many batches of an epoch each one stands for that it delivers.
    _step = 1

    def _unit(self) -> tuple[Any, ...]:
        """How its batches are numbered: a place in one numbering means nothing in another."""
        return ()

    def _left(self, place: Place) -> list[int] | None:
        """The indices of the jobs that are left to a loop at ``place``; None: it is not known how many."""
        if place.partial:
            raise StateError(
                "the state was taken within the list of a function; only a map with that function can go on"
            )
        return place.left(len(self))

    def _computed(self, epoch: int, index: int) -> Any:
        """Batch ``index`` of ``epoch``, whichever the current one is."""
        return self._run_job(epoch, index, lambda: self[index])

    def _run_job(self, epoch: int, index: int, compute: Callable[[], Any]) -> Any:
        job, stream = seeding.Job(epoch, index), seeding.Stream(self.seed, self._generators)
        return seeding.run_job(stream, job, lambda: own(compute()), self._may_draw())

    @property
    def _generators(self) -> Generators:
        """The random generators that it holds."""
        generators: Generators | None = self.__dict__.get("_held")
        if generators is None:
            of = weakref.ref(self)  # no cycle: it goes, with its workers, with the last reference
            generators = self.__dict__["_held"] = Generators(lambda: of()._task_parts())  # type: ignore[union-attr]
        return generators

    def _task_parts(self) -> list[tuple[str, Any]]:
        """What its jobs are made of, by the names that it has in a :class:`workers.job.task.Task`."""
        return [("source", self)]

    def _has_hooks(self, *names: str) -> bool:
        """Whether these hooks, or any, are defined for its epochs."""
        return _defines(self, *names)

    def _begin_epoch(self) -> None:
        """Call ``on_epoch_begin``, unless it was for this epoch."""
        epoch = self._progress.epoch
        if self._progress.announced != epoch and self._has_hooks("on_epoch_begin"):
            self._progress.announced = epoch
            job = seeding.Job(epoch, seeding.EPOCH_BEGIN)
            seeding.run_job(seeding.Stream(self.seed), job, self.on_epoch_begin)

    def _end_abandoned_epoch(self) -> None:
        if self._progress.is_begun:
            self._end_epoch()

    def _end_epoch(self) -> None:
        """The current epoch is over."""
        progress = self._progress
        version, job = progress.version, seeding.Job(progress.epoch, seeding.EPOCH_END)
        seeding.run_job(seeding.Stream(self.seed), job, self.on_epoch_end)
        if progress.version == version:  # else it has set where to go on
            progress.stand_at(progress.epoch + 1, Place())

    # -- going on elsewhere

    def state_dict(self) -> dict[str, Any]:
        """Where it stands: what was delivered of which epoch. Plain JSON, in no time, at any step.

        The same for any number of workers. Of several loops it is the place of the one that began last; in
        ``model.fit``, the beginning of the epoch. A copy or a pickle of a sequence begins anew: take the state along.

        Raises:
            StateError: what is read counts other batches: ask that, such as ``sequence.batch(8)``, for its state.
        """
        return resume.state_of(self, self._progress.place.partial)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken: the batches are those that would have followed, byte for byte.

        ``on_epoch_begin`` and ``on_epoch_end``, where they are defined, are called for the epochs in between.

        Raises:
            TypeError, StateError (a ValueError): it is no state, or one of another sequence, length or seed.
        """
        self._check_open()
        if seeding.current_job() is not None:
            raise StateError("a state cannot be loaded within a job, or within on_epoch_begin or on_epoch_end")
        resume.load(self, state)

    def _go_to_epoch(self, epoch: int) -> None:
        progress = self._progress
        if self._has_hooks():
            if epoch < progress.epoch:
                raise StateError(
                    f"the state is of epoch {epoch}, and on_epoch_end was called for later ones: "
                    f"load it into a new {type(self).__name__}"
                )
            while (here := progress.epoch) < epoch:
                self._begin_epoch()
                self._end_epoch()
                if progress.epoch != here + 1:
                    raise StateError("on_epoch_begin or on_epoch_end has set the epoch on the way to the state's")
        progress.epoch = epoch

    def _described(self) -> list[Any]:
        """Its class, and what of its arguments tells it from others, as JSON."""
        return [type(self).__qualname__]

    def _length_of_epoch(self) -> int | None:
        return len(self)

    def _is_at_end(self, batch: int) -> bool:
        """Whether an epoch is over when all before ``batch`` were delivered."""
        length = self._length_of_epoch()
        return length is not None and batch >= length

    # -- the chain

    def shard(self, rank: int, world: int, remainder: str = "drop") -> Sequence:
        """The part of process ``rank`` of ``world`` in a data-parallel training: every ``world``-th batch.

        Its state is that of all ranks together: it may be loaded by another number of them.

        Args:
            rank: 0 to ``world`` - 1.
            world: how many processes there are.
            remainder: what becomes of the last batches of an epoch that do not suffice for all: ``"drop"`` them, or
                ``"pad"`` with the first ones. All ranks have the same number of steps.
        """
        from .shard import SequenceShard

        return SequenceShard(self, rank, world, remainder)

    def map(self, function_to_run: Any, nb_workers: int = 0, **kwargs: Any) -> SequenceMap:
        """The batches that ``function_to_run`` makes of this sequence's, in ``nb_workers`` worker processes.

        Args:
            function_to_run: a function of a batch, or a list of functions applied one after the other. One that
                returns a *list* yields its items one by one.
            nb_workers: worker processes; 0: in this process, when asked.
            **kwargs: as for :class:`workers.SequenceMap`.
        """
        from workers.loader.sequence_map import SequenceMap

        return SequenceMap(self, nb_workers, function_to_run, **kwargs)

    def prefetch(self, nb_workers: int | None = None, max_queue_size: int | None = None, **kwargs: Any) -> SequenceMap:
        """This sequence, computed ahead in the background: see :func:`workers.prefetch`."""
        from workers.loader.prefetching import prefetch

        return prefetch(self, nb_workers, max_queue_size, **kwargs)

    def batch(self, batch_size: int, discard_batch_not_full: bool = False) -> Sequence:
        """Batches of ``batch_size`` consecutive samples, stacked (dicts of arrays stay dicts of arrays).

        Args:
            discard_batch_not_full: leave out the last batch where samples are missing for it.
        """
        from .array import SequenceBatch

        return SequenceBatch(self, batch_size, discard_batch_not_full)

    def subsample(self, nb_samples: int) -> Sequence:
        """A sequence of ``nb_samples`` samples, chosen at random (by ``seed``) and then fixed."""
        raise TypeError(f"{type(self).__name__} has no samples to choose from; SequenceArray has")

    def subsample_uids(self, uids: Any, uids_name: str, new_sampler: Any = None) -> Sequence:
        """A sequence of the samples whose array ``uids_name`` holds one of ``uids``, in the order of ``uids``."""
        raise TypeError(f"{type(self).__name__} has no samples to choose from; SequenceArray has")

    def _keras_front(self) -> Any:
        use = self._keras_use
        if self.is_stream:  # nothing is left to do for workers
            return None
        if use.front is None:
            from workers.for_keras.front import KerasFront

            try:
                use.front = KerasFront(self)
            except (NotPicklableError, PlatformError) as error:
                logger.warning("model.fit computes the batches in its own process: %s", error)
                use.front = False
        return None if use.front is False else use.front

    # -- the end

    def close(self) -> None:
        """Let go of everything. May be repeated; what comes after raises ClosedError."""
        self._progress.is_closed = True
        front = self._keras_use.front
        if front is not None and front is not False:
            front.close()

    def _check_open(self) -> None:
        if self._progress.is_closed:
            raise ClosedError(f"this {type(self).__name__} was closed; make a new one")

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


for _name, _of_keras in _KERAS_HOOKS.items():
    setattr(Sequence, _name, _as_hook(getattr(Sequence, _name), _of_keras))


def _as_job(getitem: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """``__getitem__`` of a subclass, such that a call from outside of a job is one."""

    @functools.wraps(getitem)
    def __getitem__(self: Sequence, index: Any) -> Any:
        is_for_keras = "_keras" in self.__dict__ and is_called_by_keras()
        if seeding.current_job() is not None and not is_for_keras:
            return getitem(self, index)
        self._check_open()
        index = check_index(index, self)

        def compute(index: int) -> Any:
            return self._run_job(self._progress.epoch, index, lambda: getitem(self, index))

        return self._keras_batch(index, compute) if is_for_keras else compute(index)

    return _mark(__getitem__)


def _defines(source: Any, *hooks: str) -> bool:
    methods = [getattr(type(source), name, None) for name in hooks or _KERAS_HOOKS]
    bases = Sequence.on_epoch_begin, Sequence.on_epoch_end, None
    return any(method not in bases and method.__module__.partition(".")[0] != "keras" for method in methods)


class SequenceDerived(Sequence):
    """A sequence made from another one, whose seed and epoch it shares."""

    def __init__(self, source_split: Any) -> None:
        super().__init__()
        self.source_split = source_split
        if isinstance(source_split, Sequence):
            source_split._check_open()

    @property
    def _progress(self) -> Progress:
        if isinstance(self.source_split, Sequence):
            return self.source_split._progress
        return super()._progress

    def _has_hooks(self, *names: str) -> bool:
        source = self.source_split
        return source._has_hooks(*names) if isinstance(source, Sequence) else _defines(source, *names)

    def _unit(self) -> tuple[Any, ...]:
        return self.source_split._unit() if isinstance(self.source_split, Sequence) else ()

    def _described(self) -> list[Any]:
        return [type(self).__qualname__, resume.described(self.source_split)]

    @property
    def is_stream(self) -> bool:  # type: ignore[override]
        """Whether the source is read in order in the consumer's process."""
        return bool(getattr(self.source_split, "is_stream", False))

    @property
    def seed(self) -> int:
        """The source's."""
        if isinstance(self.source_split, Sequence):
            return self.source_split.seed
        return super().seed

    def on_epoch_begin(self) -> None:
        """The source's."""
        if hasattr(self.source_split, "on_epoch_begin"):
            self.source_split.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """The source's."""
        if hasattr(self.source_split, "on_epoch_end"):
            self.source_split.on_epoch_end()
