"""The methods that make a sequence from another one: ``sequence.map(f).batch(8).shard(rank, world)``."""

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

#: The number of workers; "auto": as many as speed up the loop.
NbWorkers: TypeAlias = int | Literal["auto"]

#: {method of the chain: what it calls}, e.g. {"map": SequenceMap}. Filled by ``wiring``.
makers: dict[str, Callable[..., Any]] = {}


class Chain(Generic[Batch_co]):
    """The base class with the methods that make a new sequence from this one, such as ``map`` and ``batch``.

    This one stays as it is. The new sequence starts at its position, and counts its own epochs from there. Closing the
    new one does not close this one.
    """

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
        """Return a sequence of ``function_to_run(batch)`` for each batch, computed in ``nb_workers`` worker processes.

        Args:
            function_to_run: a function of a batch, or a list of functions applied one after the other. If it
                returns a *list*, its items are delivered one by one; with ``as_items=False`` the list is one batch.
            nb_workers: the number of worker processes. 0: batches are computed in this process, on demand.
            max_jobs_at_once, queue_timeout, collate_fn, max_queue_size_pin: as for :class:`workers.SequenceMap`.
            **options: as for :class:`workers.SequenceMap`.

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
        """Return a SequenceMap whose workers compute these batches ahead of the loop: see :func:`workers.prefetch`."""
        return makers["prefetch"](self, nb_workers, *max_queue_size, **options)

    @explains_arguments
    def batch(self, batch_size: int, discard_batch_not_full: bool = False) -> Sequence[Any]:
        """Return a sequence of batches, each of ``batch_size`` consecutive samples of this one, stacked.

        The samples are the items of this sequence; dicts, dataclasses and the like keep their type. If a function
        before returns lists, their items are the samples; the length still counts the function's arguments.

        Args:
            batch_size: the number of samples in a batch.
            discard_batch_not_full: drop the last batch if it is short. If a function before returns lists, their items
                are counted.
        """
        return self._made("batch", batch_size, discard_batch_not_full)

    @explains_arguments
    def rebatch(
        self,
        batch_size: int,
        discard_batch_not_full: bool = False,
        collate_fn: Callable[[list[Any]], Any] | None = None,
    ) -> Sequence[Any]:
        """Return a sequence that regroups the samples of this one, in order, into batches of exactly ``batch_size``.

        The last batch may be shorter. Arrays and lists are cut and joined along their first axis. Any other value is
        kept with each part; if it differs between the parts of a batch, the batch has one for each part.

        Batches are put together in the consumer's process, so only :meth:`prefetch` and :meth:`max_samples` can follow,
        and the result has no length. A state counts samples; after :meth:`shard`, it is a state of that rank alone.

        Args:
            batch_size: the number of samples in a batch.
            discard_batch_not_full: drop the last batch if it is short.
            collate_fn: a function from the list of a batch's parts, which are batches, to the batch; called in the
                consumer's process. None: the parts are joined.

        Source: ``trw.train.Sequence.rebatch``.
        """
        return self._made("rebatch", batch_size, discard_batch_not_full, collate_fn)

    @explains_arguments
    def sub_batch(self, batch_size: int, discard_batch_not_full: bool = False) -> SequenceMap[Any]:
        """Return a sequence in which batches of more than ``batch_size`` samples are cut into several; none are joined.

        The workers cut them, along the first axis. The length still counts the batches of this sequence.

        Args:
            batch_size: the maximum number of samples in a batch.
            discard_batch_not_full: drop the last part of a batch that is cut, if it is short.

        Source: ``trw.train.Sequence.sub_batch``.
        """
        made: SequenceMap[Any] = makers["map"](self, 0, Split(batch_size, discard_batch_not_full))
        return made

    def collate(self, collate_fn: Callable[[Any], Any] | None = None, device: None = None) -> SequenceMap[Any]:
        """Return a sequence of ``collate_fn(batch)`` for each batch, computed in the workers. A list is one batch.

        Args:
            collate_fn: a function of a batch. None: a list of samples is stacked (dicts, dataclasses and the like
                keep their type), anything else stays as it is.
            device: must be None. Batches are numpy arrays; ``to_device`` of a front-end moves them.

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
        """Return a sequence whose loops read ``max_samples`` samples of this one (and the rest of the last batch).

        Each loop continues where the last one ended, also by ``break``, through the epochs of this sequence. The result
        has no length, and only :meth:`prefetch` can follow it.

        Args:
            max_samples: the minimum number of samples in a loop. A batch has as many samples as the length of its first
                array or list; a batch without one counts as one sample.

        Source: ``trw.train.Sequence.max_samples``.
        """
        made: Sequence[Any] = makers["max_samples"](self, max_samples)
        return made

    @explains_arguments
    def shuffle(self) -> Sequence[Batch_co]:
        """Return this sequence with its batches (before :meth:`batch`: samples) in a new random order in each epoch.

        The order is a function of (seed, epoch) and takes no memory. The batches themselves do not change: each has the
        same random draws as without the shuffle. For this order in ``model.fit``, give it ``shuffle=False``.
        """
        return self._made("shuffle")

    @explains_arguments
    def shard(self, rank: int, world: int, remainder: Literal["drop", "pad"] = "drop") -> Sequence[Batch_co]:
        """Return the part of process ``rank`` of ``world`` in data-parallel training: every ``world``-th batch.

        A state is the same for all ranks, and can be loaded with another number of ranks.

        Args:
            rank: 0 to ``world`` - 1.
            world: the number of processes.
            remainder: what to do with the last batches of an epoch if they are too few for all ranks: ``"drop"`` them,
                or ``"pad"`` with the first ones. All ranks have the same number of steps.
        """
        return self._made("shard", rank, world, remainder)

    @explains_arguments
    def take(self, number: int) -> Sequence[Batch_co]:
        """Return the first ``number`` batches (before :meth:`batch`: samples) of each epoch, in the present order.

        After :meth:`shuffle` they differ from epoch to epoch; so make the slice once, before the loop over epochs.
        ``sequence[start:stop:step]`` is any other slice. Raises TypeError if there are no indices, or after
        :meth:`shard`.
        """
        return self._made("take", number)

    @explains_arguments
    def skip(self, number: int) -> Sequence[Batch_co]:
        """Return all batches (before :meth:`batch`: samples) of each epoch but the first ``number``: see :meth:`take`.

        Raises ValueError if none would be left.
        """
        return self._made("skip", number)

    def _sliced(self, where: slice) -> Sequence[Batch_co]:
        return self._made("slice", where)

    def subsample(self, nb_samples: int) -> Sequence[Batch_co]:
        """Return a sequence of ``nb_samples`` of the samples, chosen once and at random (by this sequence's seed).

        Raises:
            TypeError: this sequence is not made from a SequenceArray.
        """
        raise TypeError(f"{type(self).__name__} has no samples to choose from; SequenceArray has")

    def subsample_uids(self, uids: Any, uids_name: str, new_sampler: Any = None) -> Sequence[Batch_co]:
        """Return a sequence of the samples whose item in array ``uids_name`` is one of ``uids``, in their order.

        Raises:
            TypeError: this sequence is not made from a SequenceArray.
        """
        raise TypeError(f"{type(self).__name__} has no samples to choose from; SequenceArray has")

    def _made(self, name: str, *arguments: Any) -> Sequence[Any]:
        """Return the sequence that the method ``name``, e.g. "batch", makes from this one with ``arguments``.

        A SequenceMap makes a SequenceMap over that sequence, which the same workers compute.
        """
        made: Sequence[Any] = makers[name](self, *arguments)
        return made
