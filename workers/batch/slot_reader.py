"""The consumer's end of the slots: makes batches of what a worker has put into shared memory."""

from __future__ import annotations

import os
import pickle
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from . import shared_memory
from .slots import BYTE, SMALL_NBYTES, Lease, PlainPlaced, Rest
from .tree import Array, ArrayPlace, Layout, unflattener


def put_together(build: Callable[..., Any], arrays: list[Array], rest: Rest) -> Any:
    """The batch that ``build`` (see :func:`unflattener`) makes of its arrays and its rest."""
    if rest is None or type(rest) is list:
        return build(iter(arrays), iter(rest or ()))
    others = pickle.loads(arrays.pop() if rest is True else rest)  # type: ignore[arg-type]
    return build(iter(arrays), iter(others))


class _LeaseReference(weakref.ref):  # type: ignore[type-arg]
    __slots__ = ("number",)
    number: int


class SlotReader:
    """Makes batches of what one worker has written. Runs in: consumer. Blocks: never."""

    def __init__(self) -> None:
        self._buffers: dict[int, Any] = {}  # {slot: its memory}
        self._layouts: dict[int, tuple[tuple[ArrayPlace, ...], Any]] = {}  # {layout: (places, what builds its trees)}
        self._leases: dict[int, _LeaseReference] = {}
        self._freed: deque[_LeaseReference] = deque()  # appended to by the death of a lease, in any thread
        self._copied: set[int] = set()  # slots whose batches were all copied out

    def learn(
        self, slots: list[tuple[int, int]], gone: list[int], layouts: list[tuple[int, bytes]], files: list[int]
    ) -> None:
        """Take note of new slots, slots that are no more, and new layouts. Closes ``files``."""
        for number in gone:
            self._buffers.pop(number, None)
        for (number, nbytes), file in zip(slots, files, strict=True):
            try:
                self._buffers[number] = shared_memory.attach(file, nbytes)
            finally:
                os.close(file)
        for number, pickled in layouts:
            layout: Layout = pickle.loads(pickled)
            self._layouts[number] = layout.places, unflattener(layout.spec)

    def read(self, placed: PlainPlaced) -> Any:
        """The batch itself."""
        layout, slots, offset, nbytes, rest = placed
        places, build = self._layouts[layout]
        if nbytes <= SMALL_NBYTES or shared_memory.num_mapped() > shared_memory.MAX_MAPPED:
            self._copied.update(slots)
            buffers = [self._buffers[slot] for slot in slots]
            arrays = [
                np.ndarray(shape, dtype, buffers[at], offset + start, strides).copy("K")
                for dtype, shape, strides, at, start in places
            ]
        else:
            buffers = [self._lease(slot) for slot in slots]
            arrays = [
                np.ndarray(shape, dtype, buffers[at], offset + start, strides)
                for dtype, shape, strides, at, start in places
            ]
        return put_together(build, arrays, rest)

    def skip(self, placed: PlainPlaced) -> None:
        """Nobody wants the batch any more."""
        _, slots, *_ = placed
        self._copied.update(slots)

    def _lease(self, number: int) -> Lease:
        buffer = self._buffers[number]
        lease = Lease((len(buffer),), BYTE, buffer)
        reference = self._leases[number] = _LeaseReference(lease, self._freed.append)
        reference.number = number
        return lease  # type: ignore[no-any-return]

    @property
    def nbytes(self) -> int:
        """Of all slots."""
        return sum(map(len, self._buffers.values()))

    def take_freed(self) -> list[int]:
        """The slots that the consumer has let go of since the last call."""
        freed = list(self._copied)
        self._copied.clear()
        while self._freed:
            number = self._freed.popleft().number
            del self._leases[number]
            freed.append(number)
        return freed
