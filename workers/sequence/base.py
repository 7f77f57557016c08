"""The Keras-style base class ``Sequence``: a function of the index, and who iterates moves its epoch on."""

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

from . import display, state
from .chain import Batch_co, Chain, makers
from .clock import Clock, asking, has_hooks, is_default, with_clock
from .epochs import begin_epoch, seed_of
from .jobs import task_of, wrap_methods
from .live import Live
from .passes import Pass, PassIterator, read_alone
from .plan import Plan

if TYPE_CHECKING:
    from typing_extensions import Self

    from workers.report.report import Report

    from .progress import Progress

logger = logging.getLogger("workers")


class Sequence(Chain[Batch_co]):
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

    #: Attributes that a copy makes anew.
    _not_copied = ("_live", "_seen_as_dataset")

    def __init__(self, *, seed: int | None = None) -> None:
        if seed is not None:
            self.seed = seed
        elif seeding.current_stream() is not None:  # a job makes it
            self.__dict__["_sequence_seed"] = seeding.draw_seed()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        wrap_methods(cls)

    @abstractmethod
    def __len__(self) -> int:
        """Batches in an epoch."""
        length = keras.num_batches_of_class(self, Sequence)
        if length is None:
            raise NotImplementedError(f"{type(self).__name__} must define __len__")
        return length

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
        return seed_of(self)

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
    def _live(self) -> Any:
        # Not by attribute: a class may pass on unknown ones to another sequence.
        live = self.__dict__.get("_live")
        if live is None:
            live = self.__dict__["_live"] = self._make_live()
        return live

    def _make_live(self, clock: Clock | None = None) -> Live:
        return Live(self, clock)

    @property
    def _clock(self) -> Clock:
        return self._live.clock  # type: ignore[no-any-return]

    # -- what a source says of itself. To be overridden where it is otherwise.

    #: Its batches are read in order in the consumer's process, and sent to workers. They are in random order already,
    #: so ``model.fit`` is given them as they come, whatever its ``shuffle``.
    is_stream = False

    #: Whether the arrays of its batches are made for them, and kept by nobody: so they need not be copied.
    _makes_fresh_batches = False

    #: What an item of it is called, and several.
    _item_names = "batch", "batches"

    def _identity(self) -> list[Any]:
        """What identifies it in a saved state: its class, and the arguments that matter, as JSON."""
        return [type(self).__qualname__]

    def _may_draw(self) -> bool:
        """Whether its batches may depend on ``random`` or ``numpy.random``, which then are seeded."""
        return True

    def _is_length_at_hand(self) -> bool:
        """Whether ``len()`` of it runs no function of the user's but ``__len__``."""
        return True

    def _samples_at(self, places: Any) -> Any:
        """Its items at ``places``, an array of integers, as one batch; None: they have to be asked for one by one."""
        return None

    def _share(self) -> None:
        """Put large data of its own into shared memory, in the place of what it has: it will be sent to workers."""

    def _has_hooks(self, *names: str) -> bool:
        """Whether these hooks, or any, are defined for its epochs."""
        return has_hooks(self, self._plan().origin, names)

    def _own_facts(self) -> Iterable[display.DisplayedFact | None]:
        """What is told of one of its kind, where it shows itself."""
        return ()

    # -- what it computes

    def _plan(self) -> Plan:
        """What it computes in any epoch."""
        given = self.__dict__.get("_given_seed")
        return Plan.of(self, () if given is None else (given,))

    # -- loops

    def __iter__(self) -> Iterator[Batch_co]:
        """Begin a pass over what is left of the current epoch."""
        plan, position, places = begin_epoch(self)
        engine, order = SerialEngine(task_of(self)), plan.order(places)
        reading = engine.begin(plan.epoch, len(order), False, None, None, order)
        this_pass = Pass(reading, self._clock, position, places, order, plan.plan.assembly)
        return PassIterator(self, this_pass, functools.partial(read_alone, this_pass, this_pass.next, self))

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

    def report(self) -> Report:
        """Where the time goes, or has gone, in ``model.fit`` of this sequence: see :class:`workers.Report`.

        Raises:
            StateError: there was none. Loops over it have no figures; those over ``sequence.prefetch()`` have.
        """
        return self._live.report()  # type: ignore[no-any-return]

    # -- states

    def state_dict(self) -> dict[str, Any]:
        """Where its loop stands: what was delivered of which epoch. Plain JSON, in no time, at any step.

        The same for any number of workers; in ``model.fit``, the beginning of the epoch. A copy or a pickle of a
        sequence begins anew: take the state along.
        """
        self._check_open()
        return state.taken(self)

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
        self._live.generators.look_first()  # before a hook can draw from them
        with_clock(self._clock, state.load, self, state.read(state_dict))

    # -- the end

    def changed(self) -> None:
        """Say that something has changed which is not seen by itself: all jobs of the next epoch will see it.

        Seen are, at the beginning of each epoch: attributes that are set anew, and what changes in small objects, in
        containers of numbers and strings, and, where hooks are defined, in anything. Not seen without hooks: what is
        written between epochs into a large array, a shared one, a memmap, a file or, not by torch, a large tensor, and
        what changes in items of a large container. Workers keep what they hold, but for attributes that have changed.
        """
        self._clock.num_changes += 1

    def close(self) -> None:
        """Let go of everything. May be repeated; what comes after raises ClosedError."""
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

    # -- what Python, notebooks and Keras see of it

    __repr__, _repr_html_, __dir__ = display.shown, display.shown_as_table, display.offered

    __class__ = property(lambda self: seen_class(type(self)), object.__dict__["__class__"].__set__)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return keras.reduced_sequence(self, protocol, self._not_copied)

    __reduce_ex__.is_by_attributes = True  # type: ignore[attr-defined]

    # For a Keras that is not known, which reads a sequence by itself.
    workers = 1
    use_multiprocessing = False
    max_queue_size: Any = 10

    @property
    def num_batches(self) -> int | None:
        """Its length, by the name that Keras has for it; None: as many as come, which may be without an end."""
        return count_batches(self)


_fitted: list[bool] = []  # Keras reads sequences by passes


def seen_class(own: type) -> type:
    """What ``isinstance`` sees a sequence as: where Keras is loaded, a PyDataset."""
    dataset = keras.keras_class()
    if dataset is None:
        return own
    if not _fitted and makers["fit"]():
        _fitted.append(True)
    return keras.seen_class(own, dataset)


def count_batches(sequence: Sequence[Any]) -> int | None:
    """How many batches ``model.fit`` may ask for in an epoch; None: as many as come."""
    try:
        length = len(sequence)
    except TypeError:
        plan = sequence._plan()
        if plan.is_read_here or (not plan.is_rebatched and (plan.num_places() or 0) >= keras.ENDLESS):
            return None
        raise
    return None if length >= keras.ENDLESS else length


def plan_of(source: Any) -> Plan:
    """What a link of the chain is made of: the plan of any source."""
    return source._plan().seen_from_behind() if isinstance(source, Sequence) else Plan.of(source)
