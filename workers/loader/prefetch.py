"""Defines ``prefetch``, which makes workers compute the batches of any sequence ahead of the loop that reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol, overload

from workers.arguments import explains_options
from workers.checks import check_choice, check_function
from workers.frameworks.keras import counted
from workers.sequence.base import Sequence, plan_of
from workers.sequence.batched_iterable import batches as batches_of
from workers.sequence.chain import NbWorkers
from workers.sequence.drawn import SequenceOfLists, SequenceReordered
from workers.sequence.selection import Batch_co
from workers.sequence.shuffle import SequenceShuffle
from workers.sequence.source import check_source
from workers.sequence.weighted import SequenceWeighted

from .options import INHERITED, OrderOptions, in_plan
from .sequence_map import SequenceMap

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import PrefetchOptions


class _Indexed(Protocol[Batch_co]):
    """The type of anything with a length and indices: a list, a torch Dataset, a Keras PyDataset."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Batch_co: ...


@overload
def prefetch(
    sequence: Sequence[Batch_co] | Iterable[Batch_co] | _Indexed[Batch_co],
    nb_workers: NbWorkers | None = "auto",
    max_queue_size: int | None = None,
    *,
    shuffle: bool = False,
    **options: Unpack[PrefetchOptions],
) -> SequenceMap[Batch_co]: ...
@overload
def prefetch(
    sequence: Any,
    nb_workers: NbWorkers | None = "auto",
    max_queue_size: int | None = None,
    *,
    shuffle: bool = False,
    **options: Unpack[OrderOptions],
) -> SequenceMap[Any]: ...
@explains_options(OrderOptions)
def prefetch(
    sequence: Any,
    nb_workers: NbWorkers | None = "auto",
    max_queue_size: int | None = INHERITED,
    *,
    shuffle: bool = False,
    batch_size: int | None = None,
    drop_last: bool = False,
    collate_fn: Callable[[Any], Any] | None = None,
    weights: Any = None,
    labels: Any = None,
    num_samples: int | None = None,
    replacement: bool = True,
    sampler: Any = None,
    batch_sampler: Any = None,
    **options: Any,
) -> SequenceMap[Any]:
    """Return an iterable over the batches of ``sequence``, which worker processes compute ahead of the loop.

    Args:
        sequence: anything with ``__len__`` and ``__getitem__``: a Sequence, a Keras PyDataset, a torch Dataset, a list.
            Or anything with only ``__iter__``, such as a torch IterableDataset: its items are read in this process
            and sent to the workers. Random draws while reading are seeded by (seed, epoch). An iterator (a generator,
            zip, an open file) can be read in one pass only.
        nb_workers: the number of worker processes; 0 to compute batches in the loop; ``"auto"`` or None for as many as
            make the loop faster, see :class:`SequenceMap`.
        max_queue_size: the maximum number of batches ahead of the loop: see :class:`SequenceMap`.
        **options: ``executor``, ``executor_options``, ``seed``, ``in_order``, ``on_error``, ``max_failures``,
            ``retry_wait``, ``job_timeout``, ``max_retries``, ``max_worker_memory``, ``output`` and ``worker_init_fn``:
            see :class:`SequenceMap`. If ``sequence`` is a front-end, or is made from one, it inherits the options that
            are not given.
        shuffle: in each epoch, draw a new random order of the batches (with ``batch_size``, of the samples): see
            :meth:`Sequence.shuffle`.
        batch_size: the number of items of ``sequence`` that workers put into a batch; None if they are batches already.
            With ``on_error="skip"``, samples that raise are left out, and the batch is filled with the next ones
            (with ``collate_fn``, it is smaller). A dataset with ``__getitems__`` is called once per batch.
        drop_last: leave out the last batch if it has fewer samples.
        collate_fn: called in the workers with the list of a batch's samples or, without ``batch_size``, with each item.
            By default, samples are stacked, including arrays and numbers within tuples, dicts, dataclasses etc.
        weights, labels, num_samples, replacement: draw the samples by weight: see :meth:`Sequence.weighted`.
        sampler: the order of the samples, such as a torch ``Sampler``: see :meth:`Sequence.reorder`.
        batch_sampler: the samples of each batch, such as a torch ``BatchSampler``: see :meth:`Sequence.batch_by`.

    Returns:
        The front-end, a :class:`SequenceMap`: ``with prefetch(...) as batches: for batch in batches: ...``.

    Raises:
        TypeError, ValueError: an argument is wrong. NotPicklableError: see :class:`SequenceMap`.

    Source: ``torch.utils.data.DataLoader`` for ``shuffle``, ``batch_size``, ``drop_last``, ``collate_fn``,
    ``sampler`` and ``batch_sampler``.

    >>> with prefetch([1, 2, 3], nb_workers=0) as batches:
    ...     print(list(batches))
    [1, 2, 3]
    >>> with prefetch([1, 2, 3], nb_workers=0, batch_size=2) as batches:
    ...     print(list(batches))
    [array([1, 2]), array([3])]
    """
    check_function("collate_fn", collate_fn)
    sequence = counted(sequence)
    check_source("sequence", sequence)
    check_choice("shuffle", shuffle, (True, False))
    check_choice("drop_last", drop_last, (True, False))
    _check_one_order(shuffle, weights, sampler, batch_sampler, batch_size, drop_last)
    by_weight = {"labels": labels, "num_samples": num_samples, "replacement": replacement}
    chosen: Any = None
    if shuffle:
        chosen = SequenceShuffle(sequence, seed=options.get("seed"))
    elif weights is not None:
        chosen = SequenceWeighted(sequence, weights, **by_weight)
    elif sampler is not None:
        chosen = SequenceReordered(sequence, sampler)
    if weights is None and by_weight != {"labels": None, "num_samples": None, "replacement": True}:
        raise ValueError("labels, num_samples and replacement go with weights=..., which is not given")
    if chosen is not None:
        # A front-end's function may return lists, whose items only a front-end delivers one by one.
        sequence = SequenceMap(chosen, 0) if isinstance(sequence, SequenceMap) else chosen
    function = collate_fn
    if batch_size is not None or batch_sampler is not None:
        if plan_of(sequence).is_read_here:
            sequence = SequenceMap(sequence, 0) if not isinstance(sequence, SequenceMap) else sequence
        if batch_sampler is not None:
            sequence = SequenceOfLists(sequence, batch_sampler, collate_fn)
        else:
            sequence = batches_of(sequence, batch_size, drop_last, collate_fn)
        function = None
        on_error = options.get("on_error")
        sequence.on_error_of_samples = None if on_error is None else in_plan(on_error)
    elif options.get("on_error") == "redraw" and hasattr(type(plan_of(sequence).source), "on_error_of_samples"):
        raise ValueError(
            'on_error="redraw" is about samples, and these are batches already: give it to the .map() or .prefetch() '
            "before .batch(), or give prefetch the batch_size"
        )
    nb_workers = "auto" if nb_workers is None else nb_workers
    return SequenceMap(sequence, nb_workers, function, max_queue_size=max_queue_size, as_items=False, **options)


def _check_one_order(
    shuffle: bool, weights: Any, sampler: Any, batch_sampler: Any, batch_size: int | None, drop_last: bool
) -> None:
    """Raise ValueError if these options conflict: two orders, two batch sizes, or ``drop_last`` without one."""
    given = {"weights": weights, "sampler": sampler, "batch_sampler": batch_sampler}
    orders = ["shuffle=True"] * shuffle + [f"{name}=..." for name, value in given.items() if value is not None]
    if len(orders) > 1:
        raise ValueError(f"{' and '.join(orders)} both say which samples come, and in which order: give one of them")
    if batch_sampler is not None and (batch_size is not None or drop_last):
        raise ValueError("batch_sampler says how many samples are in a batch: leave out batch_size and drop_last")
    if drop_last and batch_size is None:
        raise ValueError("drop_last=True needs batch_size: without it, the items of sequence are the batches")
