"""``prefetch``: any sequence, computed ahead."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

from workers.checks import check_choice
from workers.sequence.chain import makes
from workers.sequence.shuffle import SequenceShuffle

from .sequence_map import SequenceMap


def usable_cores() -> int:
    """Cores this process may use: its affinity, and the quota of its cgroup."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
        if quota != "max":
            cores = min(cores, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        pass
    return max(1, cores)


@makes("prefetch")
def prefetch(
    sequence: Any,
    nb_workers: int | None = None,
    max_queue_size: int | None = None,
    executor: str = "process",
    seed: int | None = None,
    in_order: bool = True,
    on_error: str | Callable[[BaseException], str] | None = None,
    job_timeout: float | None = None,
    max_retries: int = 2,
    shuffle: bool = False,
    *,
    worker_init_fn: Callable[[int], object] | None = None,
) -> SequenceMap:
    """Compute the batches of ``sequence`` ahead, in worker processes.

    Args:
        sequence: anything with ``__len__`` and ``__getitem__``: a Sequence, a Keras PyDataset, a torch Dataset, a list.
        nb_workers: None: the cores this process may use less one, at least 1.
        max_queue_size, executor, seed, in_order, on_error, job_timeout, max_retries: see :class:`SequenceMap`.
        shuffle: in an order of its own in each epoch: see :meth:`Sequence.shuffle`.
        worker_init_fn: see :class:`SequenceMap`.

    Returns:
        The front-end, to be used as ``with prefetch(...) as batches: for batch in batches: ...``.

    >>> with prefetch([1, 2, 3], nb_workers=0) as batches:
    ...     print(list(batches))
    [1, 2, 3]
    """
    if check_choice("shuffle", shuffle, (True, False)):
        sequence = SequenceShuffle(sequence, seed=seed)
    return SequenceMap(
        sequence,
        max(1, usable_cores() - 1) if nb_workers is None else nb_workers,
        max_queue_size=max_queue_size,
        executor=executor,
        seed=seed,
        in_order=in_order,
        on_error=on_error,
        job_timeout=job_timeout,
        max_retries=max_retries,
        worker_init_fn=worker_init_fn,
    )
