"""``Chain``: the methods that make a new sequence from another one, as in ``sequence.map(f).batch(8).prefetch()``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from workers.arguments import explains_arguments
from workers.batch.stacking import Split, stack_list
from workers.checks import short

from .interleaved import interleaved
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

    These methods do not change this sequence. The new sequence starts in the same epoch (at the position of a state
    loaded into this one, if any), and then counts its own epochs. Closing the new sequence does not close this one.
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
                returns a *list*, or is a generator function, the items are delivered one by one: those of a list
                after the last one is made, those of a generator while it yields more. With ``as_items=False``, a list
                is delivered as one batch.
            nb_workers: the number of worker processes to add; without any, this process computes batches on demand.
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

        The items of this sequence are the samples. A batch of dicts, dataclasses or the like has their type. If an
        earlier function in the chain returns lists, the items of the lists are the samples, but ``len()`` counts each
        list as one sample.

        Args:
            batch_size: the number of samples in a batch.
            discard_batch_not_full: drop the last batch if it has fewer samples.
            collate_fn: a function from the list of a batch's samples to the batch, such as :func:`workers.pad`, called
                in the workers; None to stack them.
        """
        return self._made("batch", batch_size, discard_batch_not_full, collate_fn)

    @explains_arguments
    def interleave(self, function: Any, cycle_length: int, block_length: int = 1) -> Sequence[Any]:
        """Return a sequence of the items that ``function`` yields for each item of this one, several of them in turn.

        Each job reads ``cycle_length`` items of this sequence, such as paths of files, at the same time, to their end.

        Args:
            function: a generator function of an item; any iterable that it returns will do.
            cycle_length: how many items of this sequence are read at the same time.
            block_length: how many items are taken from one of them before it is the turn of the next.

        Source: ``tf.data.Dataset.interleave``, where the next item takes the place of one that has ended.
        """
        return interleaved(self, function, cycle_length, block_length)

    @explains_arguments
    def batch_by(self, batch_sampler: Any, collate_fn: Callable[[list[Any]], Any] | None = None) -> Sequence[Any]:
        """Return a sequence of batches, each made of the samples in one of the lists that ``batch_sampler`` yields.

        Args:
            batch_sampler: an iterable of lists of indices, such as a torch ``BatchSampler``, or a function of the epoch
                that returns one. It is read once in each epoch, in this process, with draws seeded by (seed, epoch),
                after a call of its ``set_epoch``, if it has one. Batches may be of different sizes.
            collate_fn: as for :meth:`batch`.

        Raises:
            TypeError, ValueError, IndexError: an argument is wrong; or, when an epoch begins, a list has wrong indices.

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

        In each epoch, the samples are shuffled and divided into windows. Each window is sorted by length and divided
        into batches. Then all batches are shuffled. Their number, ``len()``, may differ from epoch to epoch.

        Args:
            lengths: the length of each sample (integers), or a function from a sample to its length. Worker processes
                call the function now, once for each sample.
            batch_size: the maximum number of samples in a batch.
            max_tokens: the maximum size of a padded batch: its number of samples times the greatest length. A sample
                longer than ``max_tokens`` is a batch of its own.
            window: the number of samples in a window; None for about 100 batches. A larger window wastes less padding,
                but shuffles less.
            collate_fn: as for :meth:`batch`, such as ``workers.pad(0)``.
            shuffle: if False, neither the samples nor the batches are shuffled.

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

        The last batch may be shorter. Arrays and lists are cut and joined along their first axis. Any other value is
        repeated for each part of its batch; if the parts of a new batch differ in a value, the batch has all of them.

        Batches are put together in the loop's process, so only :meth:`prefetch` and :meth:`max_samples` can follow, and
        the result has no length. A saved state counts samples; after :meth:`shard`, only the same rank can load it.

        Args:
            batch_size: the number of samples in a batch.
            discard_batch_not_full: drop the last batch if it is short.
            collate_fn: makes a new batch from the list of its parts, which were cut from old batches; called in the
                loop's process. None to join the parts.

        Source: ``trw.train.Sequence.rebatch``.
        """
        return self._made("rebatch", batch_size, discard_batch_not_full, collate_fn)

    @explains_arguments
    def sub_batch(self, batch_size: int, discard_batch_not_full: bool = False) -> SequenceMap[Any]:
        """Return a sequence in which each batch of more than ``batch_size`` samples is split into several batches.

        The workers split batches along the first axis. ``len()`` still counts the batches before they are split.

        Args:
            batch_size: the maximum number of samples in a batch.
            discard_batch_not_full: when a batch is split, drop its last part if that part is short.

        Source: ``trw.train.Sequence.sub_batch``.
        """
        made: SequenceMap[Any] = makers["map"](self, 0, Split(batch_size, discard_batch_not_full))
        return made

    def collate(self, collate_fn: Callable[[Any], Any] | None = None, device: None = None) -> SequenceMap[Any]:
        """Return a sequence of ``collate_fn(batch)`` for each batch, computed in workers; a returned list is one batch.

        Args:
            collate_fn: a function of a batch. By default, a list of samples is stacked (dicts, dataclasses and the like
                keep their type), and any other batch stays as it is.
            device: must be None. Batches are numpy arrays; :meth:`workers.SequenceMap.to_device` moves them.

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
        """Return a sequence whose loops each read the next ``max_samples`` samples of this one, in whole batches.

        Each loop continues where the previous one ended (even by ``break``), if necessary into the next epoch of this
        sequence. The result has no length, and only :meth:`prefetch` can follow it.

        Args:
            max_samples: the minimum number of samples in a loop. A batch has as many samples as the length of its first
                array or list; a batch without one counts as one sample.

        Source: ``trw.train.Sequence.max_samples``.
        """
        made: Sequence[Any] = makers["max_samples"](self, max_samples)
        return made
