"""Plan where each array of a batch goes in the worker's shared-memory slots.

A small batch shares a slot with other batches. In a large batch, each large array has its own slot, and the small
arrays follow the first large one.
"""

from __future__ import annotations

import bisect
import itertools
from typing import Any, NamedTuple

from . import shared_memory
from .label import LABEL_NBYTES
from .slots import HEADER_NBYTES, SMALL_NBYTES, Slot
from .tree import ALIGNMENT, Array, ArrayPlace, dense_strides


class Planned(NamedTuple):
    """The plan for batches of one structure: the digest of their layout, the place of each array and the slot sizes."""

    digest: int
    places: tuple[ArrayPlace, ...]
    nbytes: int
    sizes: tuple[tuple[int, bool], ...]  # of its slots, as (bytes after the header, is_main as in FreeSlots.take)


NOTHING = Planned(0, (), 0, ())


def round_up(nbytes: int, step: int = ALIGNMENT) -> int:
    return -(-nbytes // step) * step


def slot_size(nbytes: int) -> int:
    """Return the size for a slot that must hold ``nbytes``: rounded up, by at most an eighth or a memory page.

    Rounding lets arrays of similar sizes reuse each other's slots. Pages that are never touched cost no memory.
    """
    return round_up(nbytes, max(shared_memory.PAGE, 1 << max(0, nbytes.bit_length() - 4)))


def is_of(last_spec: Any, places: tuple[ArrayPlace, ...], spec: Any, arrays: list[Array]) -> bool:
    """Return True if a batch has the layout of the last one; comparing the two is faster than a look-up by dtypes.

    Args:
        last_spec: the spec of the last batch, which describes its tree of containers.
        places: the places of the last batch's arrays.
        spec: the spec of this batch.
        arrays: the arrays of this batch.
    """
    if spec != last_spec or len(arrays) != len(places):
        return False
    for array, (dtype, shape, strides, _, _) in zip(arrays, places, strict=True):
        if array.shape != shape or array.dtype is not dtype or dense_strides(array) != strides:
            return False
    return True


def places_of(arrays: list[Array], max_slots: int) -> tuple[tuple[ArrayPlace, ...], tuple[int, ...]]:
    """Plan where the ``arrays`` of a batch go, in at most ``max_slots`` new shared-memory slots.

    Returns:
        (the place of each array, the number of bytes that each slot must hold after its header).
    """
    is_small = sum(round_up(array.nbytes) for array in arrays) <= SMALL_NBYTES
    is_large = [array.nbytes > SMALL_NBYTES for array in arrays]
    num_large, count = sum(is_large), itertools.count()
    ends = [LABEL_NBYTES if is_small else HEADER_NBYTES] * max(1, min(num_large, max_slots))
    places: dict[int, ArrayPlace] = {}
    for number in sorted(range(len(arrays)), key=is_large.__getitem__, reverse=True):  # large ones first
        array = arrays[number]
        at = next(count) * len(ends) // num_large if is_large[number] else 0
        places[number] = ArrayPlace(array.dtype, array.shape, dense_strides(array), at, ends[at])
        ends[at] += round_up(array.nbytes)
    return tuple([places[number] for number in range(len(arrays))]), tuple([end - HEADER_NBYTES for end in ends])


def places_within(arrays: list[Array], slots: list[Slot]) -> list[ArrayPlace | None]:
    """Return a list with an entry for each array: its place if it already lies in one of ``slots``, else None."""
    starts = sorted([(slot.address, at) for at, slot in enumerate(slots)])
    return [_place_within(array, slots, starts) for array in arrays]


def _place_within(array: Array, slots: list[Slot], starts: list[tuple[int, int]]) -> ArrayPlace | None:
    address, flags = shared_memory.address_of(array), array.flags
    # Dense arrays only: a strided one may start inside a slot and extend beyond it.
    if not (flags.c_contiguous or flags.f_contiguous) or (before := bisect.bisect(starts, (address, len(slots)))) == 0:
        return None
    start, at = starts[before - 1]
    if address - start >= slots[at].nbytes:
        return None
    return ArrayPlace(array.dtype, array.shape, None if flags.c_contiguous else array.strides, at, address - start)
