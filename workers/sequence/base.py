"""The base class ``Sequence``, in the style of Keras: batches by index, loops that count epochs, and saved states."""

from __future__ import annotations

import functools
import logging
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from workers.checks import check_int
from workers.engine.serial import SerialEngine
from workers.errors import ClosedError, StateError
from workers.frameworks import keras
from workers.job import seeding
from workers.job.context import current_epoch

from . import display, state
from .chain import Chain
from .clock import Clock, asking, has_hooks, is_default, with_clock
from .epochs import begin_epoch, seed_of
from .jobs import task_of, wrap_methods
from .live import Live
from .passes import Pass, PassIterator, read_alone
from .plan import Plan
from .selection import Batch_co, makers

if TYPE_CHECKING:
    from typing_extensions import Self

    from workers.report.report import Report

    from .progress import Progress

logger = logging.getLogger("workers")


class Sequence(Chain[Batch_co]):
    """The base class of all sequences of batches.

    A subclass defines ``__len__`` (batches in an epoch) and ``__getitem__``. Both may draw from ``current_rng()``,
    ``random`` and ``numpy.random``, which are seeded before each batch: in an epoch, ``sequence[index]`` never changes.

    A loop over it is one epoch; the next loop is the next epoch. If a loop is left in the middle, its epoch ends when
    the next loop starts. Sequences made from it (``map``, ``batch``, ``prefetch``) count their own epochs.

    If Keras is loaded, a sequence is also a ``keras.utils.PyDataset``: ``model.fit(sequence)`` computes its batches in
    worker processes, which live until :meth:`close` or until the sequence is garbage-collected. An epoch is then one
    pass over the sequence; with ``fit(steps_per_epoch=...)`` it may span several of Keras's epochs.

    Args:
        seed: the seed of all random draws; None to draw a seed once, which is kept in ``seed`` and logged.

    Source: ``keras.utils.Sequence`` for the methods of a subclass, ``trw.train.Sequence`` for the chain.
    """

    #: The attributes that a copy does not get: it creates its own.
    _not_copied = ("_live", "_seen_as_dataset")

    def __init__(self, *, seed: int | None = None) -> None:
        if seed is not None:
            self.seed = seed
        elif seeding.current_stream() is not None:  # made within a job
            self.__dict__["_sequence_seed"] = seeding.draw_seed()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        wrap_methods(cls)

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        length = keras.num_batches_of_class(self, Sequence)
        if length is None:
            raise NotImplementedError(f"{type(self).__name__} must define __len__")
        return length

    def __getitem__(self, index: int) -> Batch_co:
        """Return batch ``index`` of the current epoch."""
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__")

    @is_default
    def on_epoch_begin(self) -> None:
        """Override to prepare each epoch: called before it, in the loop's process. Its batches see the changes."""

    @is_default
    def on_epoch_end(self) -> None:
        """Override to act after each epoch: called in the loop's process. Later batches see the changes."""

    # -- seed and epoch: created on first use, so that a subclass need not call our __init__

    @property
    def seed(self) -> int:
        """The seed of all random draws: the one given to this sequence, else one that is drawn once.

        In jobs and hooks, a seed given to a sequence made from this one comes before the one that is drawn.
        """
        return seed_of(self)

    @seed.setter
    def seed(self, seed: int) -> None:
        self.__dict__["_given_seed"] = seeding.check_seed(seed)

    @property
    def epoch(self) -> int:
        """The current epoch (from 0) of loops and of ``model.fit``; in a job or hook, the epoch of that job or hook."""
        epoch = current_epoch()
        return (asking() or self._clock).epoch if epoch is None else epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        (asking() or self._clock).set_epoch(check_int("epoch", epoch, 0))

    @property
    def _live(self) -> Any:
        # Not by getattr: a class may forward unknown attributes to another sequence.
        live = self.__dict__.get("_live")
        if live is None:
            live = self.__dict__["_live"] = self._make_live()
        return live

    def _make_live(self, clock: Clock | None = None) -> Live:
        return Live(self, clock)

    @property
    def _clock(self) -> Clock:
        return self._live.clock  # type: ignore[no-any-return]

    # -- properties of a source, with their defaults

    #: True if the consumer's process reads its batches in order, and sends them to workers. Their order is random
    #: already, so ``model.fit`` gets them in this order, whatever its ``shuffle``.
    is_stream = False

    _changes_order = False  #: True if its batches have a new order in each epoch
    #: True if the arrays of each batch are new and nothing else refers to them, so that they need not be copied.
    _makes_fresh_batches = False

    _item_names = "batch", "batches"  #: the words for one item and for several

    def _identity(self) -> list[Any]:
        """Return what identifies this sequence in a saved state: its class and the arguments that matter, as JSON."""
        return [type(self).__qualname__]

    def _may_draw(self) -> bool:
        """Return True if batches may draw from ``random`` or ``numpy.random``, which must then be seeded for each."""
        return True

    def _is_length_at_hand(self) -> bool:
        """Return True if ``len()`` of this sequence calls no user function besides ``__len__``, such as a sampler."""
        return True

    def _samples_at(self, places: Any) -> Any:
        """Return the items at indices ``places`` (int64 array) as one batch; None if they must be got one by one."""
        return None

    def _share(self) -> None:
        """Move this sequence's large arrays into shared memory. Called before the sequence is sent to workers."""

    def _has_hooks(self, *names: str) -> bool:
        """Return True if one of ``names`` (default: on_epoch_begin, on_epoch_end) is defined for this sequence."""
        return has_hooks(self, self._plan().origin, names)

    def _own_facts(self) -> Iterable[display.DisplayedFact | None]:
        """Yield the facts that ``repr`` of this sequence shows besides length and epoch. A fact of None is left out."""
        return ()

    # -- its plan

    def _plan(self) -> Plan:
        """Return the plan: the jobs of any epoch, their order, and the functions that their items go through."""
        given = self.__dict__.get("_given_seed")
        return Plan.of(self, () if given is None else (given,))

    # -- loops

    def __iter__(self) -> Iterator[Batch_co]:
        """Start a loop: return an iterator over an epoch's batches, or over those that remain after a loaded state."""
        plan, position, places = begin_epoch(self)
        engine, order = SerialEngine(task_of(self)), plan.order(places)
        reading = engine.begin(plan.epoch, len(order), False, None, None, order)
        this_pass = Pass(reading, self._clock, position, places, order, plan.plan.assembly)
        return PassIterator(self, this_pass, functools.partial(read_alone, this_pass, this_pass.next, self))

    def progress(self, **tqdm_options: Any) -> Progress[Batch_co]:
        """Start a loop like ``iter()``, with a progress bar: ``for batch in sequence.progress(): ...``.

        The bar is tqdm's, with batches/s and, for a front-end, the share of time that the loop waited for batches
        ("waits 3 %"). It has the length as its total, and starts at the position of a loaded state. It is shown only
        if stderr is a terminal, or in a notebook.

        Args:
            **tqdm_options: ``desc``, ``leave``, ``disable``, ... as for ``tqdm.tqdm``; they override ours.

        Returns:
            An iterator over the batches that is also the bar: ``set_postfix(loss=...)``, ``set_description(...)``, ...

        Raises:
            TypeError: tqdm has no such option.
        """
        from .progress import Progress

        return Progress(self, tqdm_options)

    def report(self) -> Report:
        """Return where ``model.fit`` of this sequence spends, or has spent, its time: see :class:`workers.Report`.

        Raises:
            StateError: no ``model.fit`` has read it. For a loop, ask the ``sequence.prefetch()`` that it runs over.
        """
        return self._live.report()  # type: ignore[no-any-return]

    # -- states

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the loop over this, as plain JSON: the epoch and which batches were delivered.

        It may be called at any step, costs little, and does not depend on the number of workers. In ``model.fit``, the
        position is the beginning of the epoch. Copies and pickles of a sequence start in epoch 0: save the state too.
        """
        self._check_open()
        return state.taken(self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume where ``state_dict`` was taken: the next batches are the ones that would have followed, byte for byte.

        The next loop starts there; a loop that still runs raises StalePassError. If ``on_epoch_begin`` or
        ``on_epoch_end`` is defined, it is called for the epochs in between, 100,000 at most.

        Raises:
            TypeError, StateError (a ValueError): it is not a state, or is that of another sequence, length or seed.
        """
        self._check_open()
        if seeding.current_job() is not None:
            raise StateError("a state cannot be loaded within a job, or within on_epoch_begin or on_epoch_end")
        self._live.generators.look_first()  # before a hook can draw from them
        with_clock(self._clock, state.load, self, state.read(state_dict))

    # -- the end

    def changed(self) -> None:
        """Announce a change of the data that is not detected automatically, so that workers see it in the next epoch.

        Detected at the beginning of each epoch: attributes that were reassigned, and changes in small objects and in
        containers of numbers and strings; if hooks are defined, any change. Not detected without hooks: writes between
        epochs into a large array, a shared one, a memmap, a file or (unless by torch) a large tensor, and changes
        within the items of a large container. Workers keep what they hold, except for attributes that have changed.
        """
        self._clock.num_changes += 1

    def close(self) -> None:
        """Stop the workers of ``model.fit`` and end progress bars. May be repeated; later loops raise ClosedError."""
        if self._live.fit is not None:
            self._live.fit.close()
        self._clock.close()

    def _check_open(self) -> None:
        if self._clock.is_closed:
            raise ClosedError(f"this {type(self).__name__} was closed; make a new one")

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- its interface for Python, notebooks and Keras

    __repr__, _repr_html_, __dir__ = display.shown, display.shown_as_table, display.offered

    __class__ = property(lambda self: seen_class(type(self)), object.__dict__["__class__"].__set__)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return keras.reduced_sequence(self, protocol, self._not_copied)

    __reduce_ex__.is_by_attributes = True  # type: ignore[attr-defined]

    # For versions of Keras that our adapter does not know: they read a sequence without it.
    workers = 1
    use_multiprocessing = False
    max_queue_size: Any = 10

    @property
    def num_batches(self) -> int | None:
        """The number of batches in an epoch, under Keras's name; None if it is unknown or infinite."""
        return count_batches(self)


_fitted: list[bool] = []  # [True] once Keras reads sequences by our adapter


def seen_class(own: type) -> type:
    """Return the ``__class__`` of a sequence of class ``own``; with Keras, a subclass of ``own`` and PyDataset."""
    dataset = keras.keras_class()
    if dataset is None:
        return own
    if not _fitted and makers["fit"]():
        _fitted.append(True)
    return keras.seen_class(own, dataset)


def count_batches(sequence: Sequence[Any]) -> int | None:
    """Return how many batches ``model.fit`` may read in an epoch of ``sequence``; None if unknown or infinite."""
    try:
        length = len(sequence)
    except TypeError:
        plan = sequence._plan()
        if plan.is_read_here or (not plan.is_rebatched and keras.is_endless(plan.num_places() or 0)):
            return None
        raise
    return None if keras.is_endless(length) else length


def plan_of(source: Any) -> Plan:
    """Return the plan of ``source`` (jobs, their order, functions) on which a sequence made from it builds its own."""
    return source._plan().seen_from_behind() if isinstance(source, Sequence) else Plan.of(source)
