"""What can be made of a sequence, and made of that again: ``sequence.map(f).batch(8).shard(rank, world)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, overload

from workers.arguments import explains_arguments
from workers.batch.stacking import Split, stack_list
from workers.checks import short

if TYPE_CHECKING:
    from typing_extensions import TypeVar, Unpack

    from workers.frameworks import OutputName
    from workers.loader.options import DatasetOptions, MapOptions, NamedMapOptions, PrefetchOptions
    from workers.loader.sequence_map import SequenceMap

    from .base import Sequence

    Batch_co = TypeVar("Batch_co", covariant=True, default=Any)
    Made = TypeVar("Made")
else:
    from typing import TypeVar

    Batch_co = TypeVar("Batch_co", covariant=True)

#: How many workers: so many, or as many as pay.
NbWorkers: TypeAlias = int | Literal["auto"]

#: What the methods of the chain call: {"map": SequenceMap, ...}. See ``wiring``.
makers: dict[str, Callable[..., Any]] = {}


class Chain(Generic[Batch_co]):
    """The methods that make a sequence of another one, which stays as it is. What is made begins where that stands
    now, and counts its own epochs from there. To close it closes nothing that it was made from."""

    if TYPE_CHECKING:

        @overload
        def map(
            self,
            function_to_run: Callable[[Batch_co], list[Made]],
            nb_workers: NbWorkers = 0,
            **options: Unpack[NamedMapOptions],
        ) -> SequenceMap[Made]: ...
        @overload
        def map(
            self,
            function_to_run: Callable[[Batch_co], Made],
            nb_workers: NbWorkers = 0,
            **options: Unpack[NamedMapOptions],
        ) -> SequenceMap[Made]: ...
        @overload
        def map(
            self,
            function_to_run: Callable[[Batch_co], Any] | list[Callable[[Any], Any]] | None,
            nb_workers: NbWorkers = 0,
            max_jobs_at_once: int | None = None,
            queue_timeout: float | None = None,
            collate_fn: Callable[..., Any] | None = None,
            max_queue_size_pin: int | None = None,
            *,
            output: OutputName | None = None,
            **options: Unpack[MapOptions],
        ) -> SequenceMap[Any]: ...

    @explains_arguments
    def map(
        self,
        function_to_run: Any,
        nb_workers: NbWorkers = 0,
        max_jobs_at_once: int | None = None,
        queue_timeout: float | None = None,
        collate_fn: Callable[..., Any] | None = None,
        max_queue_size_pin: int | None = None,
        **options: Any,
    ) -> Any:
        """The batches that ``function_to_run`` makes of this sequence's, in ``nb_workers`` worker processes.

        Args:
            function_to_run: a function of a batch, or a list of functions applied one after the other. One that
                returns a *list* yields its items one by one; with ``as_items=False`` the list is one batch.
            nb_workers: worker processes; 0: in this process, when asked.
            max_jobs_at_once, queue_timeout, collate_fn, max_queue_size_pin, **options: as for
                :class:`workers.SequenceMap`.

        Source: ``trw.train.Sequence.map``, for the order of the arguments.
        """
        others: dict[str, Any] = {"max_jobs_at_once": max_jobs_at_once, "max_queue_size_pin": max_queue_size_pin}
        if queue_timeout is not None:
            others["queue_timeout"] = queue_timeout
        return makers["map"](self, nb_workers, function_to_run, collate_fn=collate_fn, **others, **options)

    if TYPE_CHECKING:

        @overload
        def prefetch(
            self,
            nb_workers: NbWorkers | None = "auto",
            max_queue_size: int | None = None,
            *,
            shuffle: bool = False,
            **options: Unpack[PrefetchOptions],
        ) -> SequenceMap[Batch_co]: ...
        @overload
        def prefetch(
            self,
            nb_workers: NbWorkers | None = "auto",
            max_queue_size: int | None = None,
            *,
            shuffle: bool = False,
            **options: Unpack[DatasetOptions],
        ) -> SequenceMap[Any]: ...

    def prefetch(self, nb_workers: NbWorkers | None = "auto", *max_queue_size: Any, **options: Any) -> Any:
        """This sequence, computed ahead in the background: see :func:`workers.prefetch` for the options."""
        return makers["prefetch"](self, nb_workers, *max_queue_size, **options)

    @explains_arguments
    def batch(self, batch_size: int, discard_batch_not_full: bool = False) -> Sequence[Any]:
        """Batches of ``batch_size`` consecutive samples, stacked (dicts, dataclasses and the like keep their type).

        The samples are the items of this sequence. Where a function before returns lists, these are the samples; the
        length still counts what the function was given.

        Args:
            batch_size: how many samples are in a batch.
            discard_batch_not_full: leave out the last batch where samples are missing for it. Where a function before
                returns lists, their items are counted.
        """
        return self._made("batch", batch_size, discard_batch_not_full)

    @explains_arguments
    def rebatch(
        self,
        batch_size: int,
        discard_batch_not_full: bool = False,
        collate_fn: Callable[[list[Any]], Any] | None = None,
    ) -> Sequence[Any]:
        """The samples of this sequence's batches, in order, in batches of exactly ``batch_size``; the last may be less.

        Arrays are cut and joined along their first axis, lists likewise. What is neither goes with each part; where the
        parts of a batch differ in it, the batch has one for each.

        The batches are put together where they are read: so only :meth:`prefetch` and :meth:`max_samples` can follow,
        and it has no length. A state counts samples; behind :meth:`shard`, it is a state of that rank.

        Args:
            batch_size: how many samples are in a batch.
            discard_batch_not_full: leave out the last batch where samples are missing for it.
            collate_fn: makes a batch of the list of its parts, which are batches; called where they are read. None:
                they are joined.

        Source: ``trw.train.Sequence.rebatch``.
        """
        return self._made("rebatch", batch_size, discard_batch_not_full, collate_fn)

    @explains_arguments
    def sub_batch(self, batch_size: int, discard_batch_not_full: bool = False) -> SequenceMap[Any]:
        """This sequence's batches, those of more than ``batch_size`` samples cut into several; none are joined.

        Cut in the workers, along the first axis. The length still counts the batches of this sequence.

        Args:
            batch_size: how many samples are in a batch at most.
            discard_batch_not_full: of a batch that is cut, leave out a last part of fewer samples.

        Source: ``trw.train.Sequence.sub_batch``.
        """
        made: SequenceMap[Any] = makers["map"](self, 0, Split(batch_size, discard_batch_not_full))
        return made

    def collate(self, collate_fn: Callable[[Any], Any] | None = None, device: None = None) -> SequenceMap[Any]:
        """The batches that ``collate_fn`` makes of this sequence's, in its workers. A list is one batch.

        Args:
            collate_fn: a function of a batch. None: a list of samples is stacked (dicts, dataclasses and the like
                keep their type), all else is left as it is.
            device: None. Batches are numpy arrays; ``to_device`` of a front-end moves them.

        Source: ``trw.train.Sequence.collate``.
        """
        if device is not None:
            raise ValueError(
                f"device must be None, not {short(device)}: batches are numpy arrays; to_device(...) of the front-end "
                "moves them"
            )
        if collate_fn is not None and not callable(collate_fn):
            raise TypeError(f"collate_fn must be a function of a batch, or None, not {short(collate_fn)}")
        made: SequenceMap[Any] = makers["map"](self, 0, collate_fn or stack_list, as_items=False)
        return made

    @explains_arguments
    def max_samples(self, max_samples: int) -> Sequence[Any]:
        """This sequence in passes of ``max_samples`` samples (and the rest of the batch that reaches it).

        Each pass goes on where the one before has ended, also by ``break``, through the epochs of this sequence. It has
        no length, and only :meth:`prefetch` can follow it.

        Args:
            max_samples: how many samples there are in a pass, at least. Those of a batch are as many as its first
                array or list is long; a batch without one counts as one.

        Source: ``trw.train.Sequence.max_samples``.
        """
        made: Sequence[Any] = makers["max_samples"](self, max_samples)
        return made

    @explains_arguments
    def shuffle(self) -> Sequence[Batch_co]:
        """The same batches (before :meth:`batch`: samples) in an order that is drawn anew for each epoch.

        The order is a function of (seed, epoch) and takes no memory. What the batches are does not change: each has
        the draws that it has without this. In ``model.fit``, give ``shuffle=False`` along to have this order.
        """
        return self._made("shuffle")

    @explains_arguments
    def shard(self, rank: int, world: int, remainder: Literal["drop", "pad"] = "drop") -> Sequence[Batch_co]:
        """The part of process ``rank`` of ``world`` in a data-parallel training: every ``world``-th batch.

        Its state is that of all ranks together: it may be loaded by another number of them.

        Args:
            rank: 0 to ``world`` - 1.
            world: how many processes there are.
            remainder: what becomes of the last batches of an epoch that do not suffice for all: ``"drop"`` them, or
                ``"pad"`` with the first ones. All ranks have the same number of steps.
        """
        return self._made("shard", rank, world, remainder)

    def subsample(self, nb_samples: int) -> Sequence[Batch_co]:
        """A sequence of ``nb_samples`` samples, chosen at random (by ``seed``) and then fixed."""
        raise TypeError(f"{type(self).__name__} has no samples to choose from; SequenceArray has")

    def subsample_uids(self, uids: Any, uids_name: str, new_sampler: Any = None) -> Sequence[Batch_co]:
        """A sequence of the samples whose array ``uids_name`` holds one of ``uids``, in the order of ``uids``."""
        raise TypeError(f"{type(self).__name__} has no samples to choose from; SequenceArray has")

    def _made(self, name: str, *arguments: Any) -> Sequence[Any]:
        """What the maker ``name`` makes of this. A front-end makes a front-end of it, whose workers work on it."""
        made: Sequence[Any] = makers[name](self, *arguments)
        return made
