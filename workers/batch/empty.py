"""``workers.empty``: arrays that lie in the memory of the batch from the start."""

from __future__ import annotations

from typing import Any

import numpy as np

from workers.job import seeding

from .slot_writer import SlotWriter

#: What puts the results of this process's jobs into slots; None: this is no worker process.
writer: SlotWriter | None = None


def empty(shape: int | tuple[int, ...], dtype: Any = float) -> np.ndarray[Any, Any]:
    """An uninitialised array that already lies where the batch will be delivered from.

    Inside a job in a worker process, an array that is made so, filled and returned (as it is, or as part of a
    batch) reaches the consumer without being copied. Anywhere else this is ``numpy.empty``.

    Args:
        shape: lengths of its axes.
        dtype: as for ``numpy.empty``.

    Returns:
        An array in C order.
    """
    if writer is None or seeding.current_job() is None:
        return np.empty(shape, dtype)
    return writer.empty(shape, dtype)
