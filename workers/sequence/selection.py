"""The methods that choose the batches or samples of a sequence, and their order, such as ``shuffle`` and ``take``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Literal

from workers.arguments import explains_arguments
from workers.checks import check_bool, check_callable

if TYPE_CHECKING:
    from os import PathLike

    from typing_extensions import TypeVar

    from workers.cache.items import ItemCache

    from .base import Sequence

    Batch_co = TypeVar("Batch_co", covariant=True, default=Any)
else:
    from typing import TypeVar

    Batch_co = TypeVar("Batch_co", covariant=True)

#: {name of a method: what makes its result}, e.g. {"map": SequenceMap}. Filled by ``wiring``.
makers: dict[str, Callable[..., Any]] = {}


class Selection(Generic[Batch_co]):
    """The base class with the methods that choose the batches or samples of a sequence, and their order."""

    @explains_arguments
    def shuffle(self, window: int | None = None) -> Sequence[Batch_co]:
        """Return a sequence of the same batches (or samples, before :meth:`batch`), newly shuffled in each epoch.

        The order is a function of (seed, epoch) and takes no memory. The batches themselves do not change: each has the
        same random draws as without the shuffle. To keep this order, call ``model.fit`` with ``shuffle=False``.

        Args:
            window: None for a source with indices. A source with only ``__iter__`` is shuffled within windows of this
                many items, which this process reads and holds. This order, too, is a function of (seed, epoch).
        """
        return self._made("shuffle", window)

    @explains_arguments
    def shard(self, rank: int, world: int, remainder: Literal["drop", "pad"] = "drop") -> Sequence[Batch_co]:
        """Return one process's part in data-parallel training: every ``world``-th batch, starting with batch ``rank``.

        A state is the same for all ranks, and can be loaded with another number of ranks.

        Args:
            rank: the number of the process, 0 to ``world`` - 1.
            world: the number of processes.
            remainder: what to do with the last batches of an epoch if they are too few for all ranks: ``"drop"`` them,
                or ``"pad"`` them with the epoch's first batches. All ranks then have the same number of steps,
                unless a function returns lists or samples are skipped.
        """
        return self._made("shard", rank, world, remainder)

    @explains_arguments
    def take(self, number: int) -> Sequence[Batch_co]:
        """Return a sequence of the first ``number`` batches (or samples, before :meth:`batch`) of each epoch.

        After :meth:`shuffle`, these differ from epoch to epoch. The result counts its own epochs, so make it once,
        before the loop over epochs. ``sequence[start:stop:step]`` makes any other slice. Raises TypeError after
        :meth:`shard`, and if this sequence has no indices.
        """
        return self._made("take", number)

    @explains_arguments
    def skip(self, number: int) -> Sequence[Batch_co]:
        """Return a sequence without the first ``number`` batches (or samples, before :meth:`batch`) of each epoch.

        See :meth:`take`. Raises ValueError if no batch would be left.
        """
        return self._made("skip", number)

    def _sliced(self, where: slice) -> Sequence[Batch_co]:
        return self._made("slice", where)

    @explains_arguments
    def weighted(
        self, weights: Any, *, labels: Any = None, num_samples: int | None = None, replacement: bool = True
    ) -> Sequence[Batch_co]:
        """Return a sequence of samples drawn from this one in proportion to their weights, differently in each epoch.

        With replacement, a sample whose share is 2.3 of an epoch's draws comes two or three times in that epoch, and
        is augmented differently each time.

        Args:
            weights: a number >= 0 for each sample; or {label: weight}; or ``"balanced"``, which gives each label the
                same share; or a function of the epoch that returns one of these, called when the epoch begins. Weights
                are copied. To change them from the next epoch on, assign to the attribute ``weights`` of the result.
            labels: the label of each sample, for weights by label: an array, or the name of one in a SequenceArray.
            num_samples: the number of draws in an epoch; None for the number of samples.
            replacement: False to draw no sample twice in an epoch.

        Raises:
            TypeError, ValueError: an argument is wrong, or the order of this sequence changes in each epoch.

        Source: ``torch.utils.data.WeightedRandomSampler`` for the arguments.
        """
        return self._made("weighted", weights, labels=labels, num_samples=num_samples, replacement=replacement)

    @explains_arguments
    def reorder(self, sampler: Any) -> Sequence[Batch_co]:
        """Return a sequence of the samples of this one in the order of ``sampler``.

        Args:
            sampler: an iterable of indices, such as a torch ``Sampler``, or a function of the epoch that returns one.
                It is read once an epoch, in this process, with draws seeded by (seed, epoch). A sampler that has the
                method ``set_epoch`` is first told the epoch.

        Raises:
            TypeError, ValueError, IndexError: ``sampler`` is unsuitable, or gives wrong indices when an epoch begins.

        Source: ``torch.utils.data.DataLoader(sampler=...)``.
        """
        return self._made("reorder", sampler)

    @explains_arguments
    def repeat(self, number: int | None = None) -> Sequence[Batch_co]:
        """Return a sequence in which one epoch consists of ``number`` epochs of this one; None for endlessly many.

        Each of them has its own shuffle and its own random draws. Hooks are called once for all of them.

        Source: ``tf.data.Dataset.repeat``.
        """
        return self._made("repeat", number)

    def split(
        self, share: float | list[float], by: Any = None, stratify: Any = None, seed: int = 0
    ) -> tuple[Sequence[Batch_co], ...]:
        """Return disjoint parts of the samples, such as one for training and one for validation.

        The parts are drawn by ``seed``, and are the same in each epoch and each run of the program.

        Args:
            share: the share of the first part, such as 0.9 (the second has the rest), or a list of all parts' shares.
            by: a label for each sample (an array, or the name of one in a SequenceArray), such as the patient. All
                samples with the same label are in the same part.
            stratify: a label for each sample, such as the class. The samples of each label are divided by these shares.
            seed: the seed of the split; another seed gives another split.

        Raises:
            TypeError, ValueError: an argument is wrong, a part would be empty, or the order of this sequence changes in
                each epoch.

        >>> from workers import SequenceArray
        >>> train, test = SequenceArray({"x": [5, 6, 7, 8, 9]}).split(0.6)
        >>> len(train), len(test)
        (3, 2)
        """
        places = makers["split"](self, share, by, stratify, seed)
        return tuple(self._made("subset", each, sum(map(len, places)), "split") for each in places)

    @explains_arguments
    def filter(self, function: Callable[[Any], Any], count: bool = False) -> Sequence[Batch_co]:
        """Return a sequence of the batches (or samples, before :meth:`batch`) for which ``function`` returns true.

        Args:
            function: a function of a batch, called in the workers.
            count: if False, ``function`` is called in each epoch: the result has no length, and later methods, such as
                ``take``, count the batches before the filter. If True, ``function`` is called once for each batch, now,
                in worker processes, before any hook: the result has a length and indices, and ``function`` must give
                the same answers in all epochs.

        Raises:
            TypeError, ValueError: with ``count``, no batch is left, this sequence has no indices, or its order changes
                in each epoch.
        """
        if not check_bool("count", count):
            made: Sequence[Any] = makers["filter"](self, check_callable("function", function))
            return made
        places, length = makers["filtered"](self, check_callable("function", function))
        return self._made("subset", places, length, "filtered")

    @explains_arguments
    def reservoir(self, size: int, draws_per_item: int) -> Sequence[Batch_co]:
        """Return a sequence of items that are drawn at random from a pool of loaded ones, each several times.

        This pays off for items that take long to load, such as volumes from which each draw crops a small part. The
        pool is in this process. One item is replaced every ``draws_per_item`` draws; the workers of this sequence load
        the next ones. The draws are a function of (seed, epoch); a loop that resumes loads only the items it needs.

        Args:
            size: the number of items in the pool.
            draws_per_item: how often each item is drawn in an epoch.

        Raises:
            TypeError, ValueError: an argument is wrong, this sequence has no indices, or an index has several items.

        Source: ``trw.train.SequenceAsyncReservoir`` and ``torchio.Queue`` for the idea.
        """
        made: Sequence[Any] = makers["reservoir"](self, size, draws_per_item)
        return made

    @explains_arguments
    def cache(
        self,
        folder: str | PathLike[str] | None = None,
        *,
        memory: int | str | None = None,
        name: str | None = None,
    ) -> Sequence[Batch_co]:
        """Return a sequence of the same items. Each is made once, kept in a cache, and read from there in later epochs.

        The cache is in shared memory, one for all workers and front-ends, or in ``folder``, also for later runs of the
        program. What fits is kept and stays; other items are made each time. Items are the same with and without it.
        When data, attributes or functions have changed, the next epoch begins with an empty one; what is not noticed is
        listed at :meth:`workers.Sequence.changed`.

        Args:
            folder: where to keep the items, one file each; None for memory. Another source or function, or another
                version of a library, has another cache there: see :func:`workers.cache_info`.
            memory: the most memory to use, a number of bytes or a text such as ``"8GB"``; None for half of what is
                available now.
            name: the name of the cache in ``folder``, if what is cached cannot be identified in another run.

        Raises:
            TypeError, ValueError: an argument is wrong; or this sequence has no indices, or makes batches of other
                samples in each epoch. CacheError: in a loop, if a function before draws random numbers.

        Source: ``tf.data.Dataset.cache`` for the name.
        """
        return self._made("cache", folder, memory, name)

    def subsample(self, nb_samples: int) -> Sequence[Batch_co]:
        """Return a sequence of ``nb_samples`` of these samples, chosen once, at random, by this sequence's seed.

        Raises:
            TypeError: this sequence is not made from a SequenceArray.
        """
        raise TypeError(f"{type(self).__name__} has no samples to choose from; SequenceArray has")

    def subsample_uids(self, uids: Any, uids_name: str, new_sampler: Any = None) -> Sequence[Batch_co]:
        """Return a sequence of the samples with one of ``uids`` in array ``uids_name``, in the order of ``uids``.

        Raises:
            TypeError: this sequence is not made from a SequenceArray.
        """
        raise TypeError(f"{type(self).__name__} has no samples to choose from; SequenceArray has")

    def _caches(self) -> list[ItemCache]:
        """Return the caches of items that this sequence itself uses."""
        return []

    def _made(self, name: str, *arguments: Any, **options: Any) -> Sequence[Any]:
        """Return the sequence that the method ``name``, e.g. "batch", makes from this one with ``arguments``.

        SequenceMap overrides this: it returns a SequenceMap over that sequence, whose batches the same workers compute.
        """
        made: Sequence[Any] = makers[name](self, *arguments, **options)
        return made
