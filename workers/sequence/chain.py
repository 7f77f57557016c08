"""The methods that make a sequence from another one: ``sequence.map(f).batch(8).shard(rank, world)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from workers.arguments import explains_arguments
from workers.batch.stacking import Split, stack_list
from workers.checks import short

from .selection import Batch_co, Selection, makers

if TYPE_CHECKING:
    from typing_extensions import TypeVar, Unpack

    from workers.frameworks import OutputName
    from workers.loader.options import MapOptions, NamedMapOptions, OrderOptions, PrefetchOptions
    from workers.loader.sequence_map import SequenceMap

    from .base import Sequence

    Made = TypeVar("Made")

#: The number of workers, or "auto" for as many as speed up the loop.
NbWorkers: TypeAlias = int | Literal["auto"]


class Chain(Selection[Batch_co]):
    """The base class with the methods that make a new sequence from this one, such as ``map`` and ``batch``.

    This one stays as it is. The new sequence starts in the same epoch, at the position of a state loaded into this one
    if there is one, and counts its own epochs from there. Closing the new one does not close this one.
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
                returns a *list*, or is a generator, the items are delivered one by one, once all of them are made;
                with ``as_items=False``, a list is delivered as one batch.
            nb_workers: the number of worker processes; with 0, this process computes the batches on demand.
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
            **options: Unpack[OrderOptions],
        ) -> SequenceMap[Any]: ...

    def prefetch(self, nb_workers: NbWorkers | None = "auto", *max_queue_size: Any, **options: Any) -> Any:
        """Return a SequenceMap whose workers compute these batches ahead of the loop: see :func:`workers.prefetch`."""
        return makers["prefetch"](self, nb_workers, *max_queue_size, **options)

    @explains_arguments
    def batch(
        self,
        batch_size: int,
        discard_batch_not_full: bool = False,
        collate_fn: Callable[[list[Any]], Any] | None = None,
    ) -> Sequence[Any]:
        """Return a sequence of batches, each of ``batch_size`` consecutive samples of this one, stacked.

        The samples are the items of this sequence; dicts, dataclasses and the like keep their type. If an earlier
        function in the chain returns lists, their items are the samples; the length still counts the function's calls.

        Args:
            batch_size: the number of samples in a batch.
            discard_batch_not_full: drop the last batch if it is short. If an earlier function returns lists, their
                items count as samples.
            collate_fn: a function from the list of a batch's samples to the batch, such as :func:`workers.pad`, called
                in the workers; None to stack them.
        """
        return self._made("batch", batch_size, discard_batch_not_full, collate_fn)

    @explains_arguments
    def batch_by(self, batch_sampler: Any, collate_fn: Callable[[list[Any]], Any] | None = None) -> Sequence[Any]:
        """Return a sequence of batches of the samples that ``batch_sampler`` lists, in its order.

        Args:
            batch_sampler: an iterable of lists of indices, such as a torch ``BatchSampler``, or a function of the epoch
                that returns one. It is read once an epoch, in this process, with draws seeded by (seed, epoch);
                ``set_epoch`` is called if it has that method. Batches may be of different sizes.
            collate_fn: as for :meth:`batch`.

        Raises:
            TypeError, ValueError, IndexError: an argument is wrong; or, when an epoch begins, a list is.

        Source: ``torch.utils.data.DataLoader(batch_sampler=...)``.
        """
        return self._made("batch_by", batch_sampler, collate_fn)

    @explains_arguments
    def bucket(
        self,
        lengths: Any,
        batch_size: int | None = None,
        max_tokens: int | None = None,
        window: int | None = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        shuffle: bool = True,
    ) -> Sequence[Any]:
        """Return a sequence of batches of samples of similar length, so that padding wastes little.

        In each epoch, the samples are shuffled, those of each window are sorted by length and cut into batches, and the
        batches are shuffled. The number of batches, ``len()``, may differ from epoch to epoch.

        Args:
            lengths: the length of each sample (integers), or a function from a sample to its length. Worker processes
                call the function now, once for each sample.
            batch_size: the maximum number of samples in a batch.
            max_tokens: the maximum size of a padded batch: its number of samples times the greatest length. A sample
                longer than that is a batch of its own.
            window: how many samples are sorted together; None for those of 100 batches. A larger window wastes less
                padding, and shuffles less.
            collate_fn: as for :meth:`batch`, such as ``workers.pad(0)``.
            shuffle: if False, windows consist of consecutive samples, and batches stay in order.

        Raises:
            TypeError, ValueError: an argument is wrong, or the order of this sequence changes in each epoch.
        """
        return self._made("bucket", lengths, batch_size, max_tokens, window, collate_fn, shuffle)

    @explains_arguments
    def rebatch(
        self,
        batch_size: int,
        discard_batch_not_full: bool = False,
        collate_fn: Callable[[list[Any]], Any] | None = None,
    ) -> Sequence[Any]:
        """Return a sequence that regroups the samples of this one, in order, into batches of exactly ``batch_size``.

        The last batch may be shorter. Arrays and lists are cut and joined along their first axis. Any other value goes
        with each part of its batch; if the parts of a new batch have different values, it has one for each part.

        Batches are put together in the consumer's process, so only :meth:`prefetch` and :meth:`max_samples` can follow,
        and the result has no length. A state counts samples; after :meth:`shard`, only the same rank can load it.

        Args:
            batch_size: the number of samples in a batch.
            discard_batch_not_full: drop the last batch if it is short.
            collate_fn: a function from the list of a batch's parts, cut from batches, to the batch, called in the
                consumer's process; None to join the parts.

        Source: ``trw.train.Sequence.rebatch``.
        """
        return self._made("rebatch", batch_size, discard_batch_not_full, collate_fn)

    @explains_arguments
    def sub_batch(self, batch_size: int, discard_batch_not_full: bool = False) -> SequenceMap[Any]:
        """Return a sequence in which batches of more than ``batch_size`` samples are cut into several; none are joined.

        The workers cut them along the first axis. The length still counts the batches of this sequence.

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
            collate_fn: a function of a batch. By default, a list of samples is stacked (dicts, dataclasses and the like
                keep their type), and anything else stays as it is.
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

        Each loop continues where the last one ended, even by ``break``, if need be into the next epoch of this
        sequence. The result has no length, and only :meth:`prefetch` can follow it.

        Args:
            max_samples: the minimum number of samples in a loop. A batch has as many samples as the length of its first
                array or list; a batch without one counts as one sample.

        Source: ``trw.train.Sequence.max_samples``.
        """
        made: Sequence[Any] = makers["max_samples"](self, max_samples)
        return made
