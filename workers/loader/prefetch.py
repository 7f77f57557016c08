"""``prefetch``: any sequence, computed ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol, overload

from workers.arguments import explains_options
from workers.checks import check_choice, check_function
from workers.frameworks.keras import counted
from workers.sequence.base import Sequence, plan_of
from workers.sequence.batched_stream import batches as batches_of
from workers.sequence.chain import Batch_co, NbWorkers
from workers.sequence.shuffle import SequenceShuffle
from workers.sequence.source import check_source

from .options import INHERITED, DatasetOptions
from .sequence_map import SequenceMap

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import PrefetchOptions


class _Indexed(Protocol[Batch_co]):
    """A list, a torch Dataset, a Keras PyDataset, ..."""

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
    **options: Unpack[DatasetOptions],
) -> SequenceMap[Any]: ...
@explains_options(DatasetOptions)
def prefetch(
    sequence: Any,
    nb_workers: NbWorkers | None = "auto",
    max_queue_size: int | None = INHERITED,
    *,
    shuffle: bool = False,
    batch_size: int | None = None,
    drop_last: bool = False,
    collate_fn: Callable[[Any], Any] | None = None,
    **options: Any,
) -> SequenceMap[Any]:
    """Compute the batches of ``sequence`` ahead, in worker processes.

    Args:
        sequence: anything with ``__len__`` and ``__getitem__``: a Sequence, a Keras PyDataset, a torch Dataset, a list.
            Or with ``__iter__`` only, such as a torch IterableDataset: read in this process, worked on by the workers.
            What it draws is seeded by (seed, epoch). An iterator (a generator, zip, an open file) has one pass only.
        nb_workers: worker processes; 0: all is computed in the loop. ``"auto"`` or None: as many as pay; see
            :class:`SequenceMap`.
        max_queue_size, executor, executor_options, seed, in_order, on_error, job_timeout, max_retries, output,
            worker_init_fn: see :class:`SequenceMap`. Where ``sequence`` is a front-end, or is made from one, those that
            are not given are its own.
        shuffle: in an order of its own in each epoch: see :meth:`Sequence.shuffle`. With ``batch_size``, the samples.
        batch_size: ``sequence`` has samples, of which so many make a batch, in the workers. None: it has batches.
            With ``on_error="skip"``, samples that raise are left out, and the batch is filled from what follows.
            Those of a dataset with ``__getitems__`` are read by one call.
        drop_last: leave out the last batch where samples are missing for it.
        collate_fn: called in the workers with the list of a batch's samples, without those that are skipped; None:
            arrays and numbers are stacked, within tuples, dicts, dataclasses and the like. Without ``batch_size``:
            called with each item.

    Returns:
        The front-end, to be used as ``with prefetch(...) as batches: for batch in batches: ...``.

    Raises:
        TypeError, ValueError: an argument is wrong. NotPicklableError: see :class:`SequenceMap`.

    Source: ``torch.utils.data.DataLoader`` for the last four.

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
    if check_choice("shuffle", shuffle, (True, False)):
        shuffled: Any = SequenceShuffle(sequence, seed=options.get("seed"))
        # A front-end's function may return lists, which a front-end delivers one by one.
        sequence = SequenceMap(shuffled, 0) if isinstance(sequence, SequenceMap) else shuffled
    if check_choice("drop_last", drop_last, (True, False)) and batch_size is None:
        raise ValueError("drop_last=True wants batch_size: without it, the items of sequence are the batches")
    function = collate_fn
    if batch_size is not None:
        if plan_of(sequence).is_read_here:
            sequence = SequenceMap(sequence, 0) if not isinstance(sequence, SequenceMap) else sequence
        sequence, function = batches_of(sequence, batch_size, drop_last, collate_fn), None
        on_error = options.get("on_error")
        sequence.on_error_of_samples = "ask" if callable(on_error) else on_error
    nb_workers = "auto" if nb_workers is None else nb_workers
    return SequenceMap(sequence, nb_workers, function, max_queue_size=max_queue_size, as_items=False, **options)
