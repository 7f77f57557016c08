"""``Sequence``, the base class of all sequences: batches by index, loops, epochs and saved states."""

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
from workers.job.context import ask, current_epoch
from workers.job.task import chain_of

from . import display, reporting, state
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

    from .progress import Progress

logger = logging.getLogger("workers")


class Sequence(Chain[Batch_co]):
    """The base class of all sequences of batches.

    A subclass defines ``__len__`` (batches in an epoch) and ``__getitem__``, which may draw from ``current_rng()``,
    ``random`` and ``numpy.random``. These are seeded so that within an epoch, ``sequence[index]`` never changes.

    Each loop over a sequence is one epoch. After a ``break``, the next loop starts the next epoch. Sequences made from
    this one (by ``map``, ``batch``, ``prefetch``, ...) count their own epochs.

    If Keras is loaded, a sequence is also a ``keras.utils.PyDataset``: ``model.fit(sequence)`` computes its batches in
    worker processes, which live until :meth:`close` or until the sequence is garbage-collected. An epoch is still one
    run through the sequence; with ``fit(steps_per_epoch=...)``, it may span several of Keras's epochs.

    Args:
        seed: the seed of all random draws; None to draw a seed once, which is kept in ``seed`` and logged.

    Source: ``keras.utils.Sequence`` for the methods of a subclass, ``trw.train.Sequence`` for the chain.
    """

    #: Attributes that copies and pickles leave out; a copy creates its own.
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
        """Override to prepare each epoch. The hook runs in the loop's process; the epoch's batches see its changes."""

    @is_default
    def on_epoch_end(self) -> None:
        """Override to act after each epoch. The hook runs in the loop's process; later batches see its changes."""

    # -- seed and epoch: created on first use, so that a subclass need not call our __init__

    @property
    def seed(self) -> int:
        """The seed of all random draws: the seed given to this sequence; if none was given, one drawn on first use.

        In jobs and hooks, a seed given to a sequence made from this one takes precedence over a drawn seed.
        """
        return seed_of(self)

    @seed.setter
    def seed(self, seed: int) -> None:
        self.__dict__["_given_seed"] = seeding.check_seed(seed)

    @property
    def epoch(self) -> int:
        """The current epoch (from 0) of loops and of ``model.fit``; in a job or hook, the epoch of that job or hook."""
        epoch = current_epoch()
        return (asking() or self._clock).epoch if epoch is None else asked_for(epoch, self)

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

    #: True if the consumer's process reads the batches in order and sends them to workers, although they have indices.
    #: Their order is random already, so ``model.fit`` keeps it, even with ``shuffle=True``.
    is_stream = False

    _changes_order = False  #: True if the batches have a new order in each epoch
    #: True if the arrays of each batch are new and nothing else refers to them, so that they need not be copied.
    _makes_fresh_batches = False

    _item_names = "batch", "batches"  #: the words for one item and for several

    def _identity(self) -> list[Any]:
        """Return what identifies this sequence in a saved state: its class and the arguments that matter, as JSON."""
        return [type(self).__qualname__]

    def _may_draw(self) -> bool:
        """Return True if batches may draw from ``random`` or ``numpy.random``, which are then seeded for each batch."""
        return True

    def _is_length_at_hand(self) -> bool:
        """Return True if ``len()`` is quick, i.e. calls no user function, such as a sampler, except ``__len__``."""
        return True

    def _samples_at(self, places: Any) -> Any:
        """Return the items at indices ``places`` (int64 array) as one batch; None if they must be read one by one."""
        return None

    def _share(self) -> None:
        """Move this sequence's large arrays into shared memory. Called before the sequence is sent to workers."""

    def _has_hooks(self, *names: str) -> bool:
        """Return True if the user has defined one of the hooks ``names`` (default: on_epoch_begin, on_epoch_end)."""
        return has_hooks(self, self._plan().origin, names)

    def _own_facts(self) -> Iterable[display.DisplayedFact | None]:
        """Yield the facts that ``repr`` shows in addition to length and epoch; a fact of None is left out."""
        return ()

    # -- its plan

    def _plan(self) -> Plan:
        """Return the plan of this sequence: the jobs of any epoch, their order, and the functions of their items."""
        given = self.__dict__.get("_given_seed")
        return Plan.of(self, () if given is None else (given,))

    # -- loops

    def __iter__(self) -> Iterator[Batch_co]:
        """Start a loop: return an iterator over an epoch's batches; after a loaded state, over the remaining ones."""
        plan, position, places = begin_epoch(self)
        engine, order = SerialEngine(task_of(self)), plan.order(places)
        reading = engine.begin(plan.epoch, len(order), False, None, None, order)
        this_pass = Pass(reading, self._clock, position, places, order, plan.plan.assembly)
        return PassIterator(self, this_pass, functools.partial(read_alone, this_pass, this_pass.next, self))

    def progress(self, **tqdm_options: Any) -> Progress[Batch_co]:
        """Start a loop with a progress bar: ``for batch in sequence.progress(): ...``.

        The bar is drawn by tqdm. It shows batches/s and, for a :class:`workers.SequenceMap`, the share of time that the
        loop waited for batches ("waits 3 %"). Its total is the length, and it starts at the position of a loaded state.
        It is shown only if stderr is a terminal, or in a notebook.

        Args:
            **tqdm_options: ``desc``, ``leave``, ``disable``, ... as for ``tqdm.tqdm``; they override our defaults.

        Returns:
            An iterator over the batches that is also the bar: ``set_postfix(loss=...)``, ``set_description(...)``, ...

        Raises:
            TypeError: an option is not one of tqdm's.
        """
        from .progress import Progress

        return Progress(self, tqdm_options)

    report, figures = reporting.report, reporting.figures

    # -- states

    def state_dict(self) -> dict[str, Any]:
        """Return the loop's position in this sequence, as plain JSON: the epoch and which batches were delivered.

        Call it at any step: it costs little, and is the same with any number of workers. In ``model.fit``, the position
        is always the beginning of the epoch. A copy or pickle of a sequence starts in epoch 0: save the state as well.
        """
        self._check_open()
        return state.taken(self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume where ``state_dict`` was taken: the next batches are the ones that would have followed, byte for byte.

        The next loop starts at that position; a loop that is still running raises StalePassError. If ``on_epoch_begin``
        or ``on_epoch_end`` is defined, it is called for the epochs in between, 100,000 at most.

        Raises:
            TypeError, StateError (a ValueError): this is not a state, or is one of another sequence, length or seed.
        """
        self._check_open()
        if seeding.current_job() is not None:
            raise StateError("a state cannot be loaded within a job, or within on_epoch_begin or on_epoch_end")
        self._live.generators.look_first()  # before a hook can draw from them
        with_clock(self._clock, state.load, self, state.read(state_dict))

    # -- the end

    def changed(self) -> None:
        """Announce a change of the data that is not detected: workers see it in the next epoch, and caches are emptied.

        At the beginning of each epoch, workers get reassigned attributes, and changes in small objects and in
        containers of numbers and strings; if hooks are defined, any change. Without hooks, these are not detected:
        writes between epochs into a large or shared array, a memmap, a file or (unless by torch) a large tensor, and
        changes within the items of a large container. Workers keep all attributes that have not changed.
        """
        announce_change(self)

    def close(self) -> None:
        """Stop ``model.fit``'s workers and end progress bars. May be called again; later loops raise ClosedError."""
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

    # For versions of Keras that our adapter does not support, which read these attributes themselves.
    workers = 1
    use_multiprocessing = False
    max_queue_size: Any = 10

    @property
    def num_batches(self) -> int | None:
        """The number of batches in an epoch, under Keras's name; None if it is unknown or infinite."""
        return count_batches(self)


def asked_for(epoch: int, sequence: Any) -> int:
    """Return ``epoch``, which ``sequence`` was asked for in a job. Note it if the class is the user's."""
    if not type(sequence).__module__.startswith("workers."):
        ask("epoch")
    return epoch


def announce_change(sequence: Any) -> None:
    """Count a call of ``changed()`` of ``sequence``, and of all sequences that it was made from."""
    for each in chain_of(sequence):
        if isinstance(each, Sequence):
            each._clock.num_changes += 1


_fitted: list[bool] = []  # [True] once Keras reads sequences by our adapter


def seen_class(own: type) -> type:
    """Return the ``__class__`` of a sequence: its class ``own`` or, with Keras, a subclass of ``own`` and PyDataset."""
    dataset = keras.keras_class()
    if dataset is None:
        return own
    if not _fitted and makers["fit"]():
        _fitted.append(True)
    return keras.seen_class(own, dataset)


def count_batches(sequence: Sequence[Any]) -> int | None:
    """Return how many batches ``model.fit`` may read in an epoch of ``sequence``; None if unknown or infinite."""
    plan = sequence._plan()
    if plan.yields and not plan.is_last:
        return None
    try:
        length = len(sequence)
    except TypeError:
        if not plan.is_last and (plan.is_known_in_loop or keras.is_endless(plan.num_places() or 0)):
            return None
        raise
    return None if keras.is_endless(length) else length


def plan_of(source: Any) -> Plan:
    """Return the plan (jobs, their order, functions) of ``source``, for a sequence made from ``source`` to extend."""
    return source._plan().seen_from_behind() if isinstance(source, Sequence) else Plan.of(source)
