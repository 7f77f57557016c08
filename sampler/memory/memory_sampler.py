"""The base class of samplers of data in memory, which holds their examples."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampler.sampler import Sampler
from workers.cache.items import ItemCache
from workers.checks import check_int
from workers.job import seeding

from .examples import Examples


class MemorySampler(Sampler):
    """A sampler that draws from examples ``x`` that it holds. A subclass sets ``_examples`` in its ``__init__``."""

    _examples: Examples

    @property
    def x(self) -> Any:
        """The examples as they are held, not a copy: an array (in shared memory once workers have needed it), or an
        object that has a length and is indexed by position, such as a list of paths."""
        return self._examples.x

    @property
    def load_example_fn(self) -> Callable[[Any], Any] | None:
        """The function ``item of x -> array`` that loads an example; None: the items are the examples."""
        return self._examples.load_example_fn

    @property
    def example_shape(self) -> tuple[int | None, ...]:
        """The shape of one example before augmentation; None for each axis along which examples differ. With
        ``load_example_fn``, 16 examples are loaded to find it."""
        return self._examples.example_shape

    def get_slice(self, begin: int = 0, size: int = -1) -> tuple[Any, Any]:
        """Return some of the examples to draw from, in the order of ``x``, for example to index or to view them.

        Args:
            begin: the first of them, 0 to ``num_examples`` - 1.
            size: how many, 1 or more; -1: all from ``begin`` on.

        Returns:
            (x, y) of at most ``size`` examples.

        Raises:
            TypeError, ValueError: an argument has the wrong type or is out of range.
        """
        begin = check_int("begin", begin, 0)
        size = check_int("size", size, -1)
        positions = self._drawn_from(begin, self.num_examples if size < 0 else begin + size)
        if not len(positions):
            raise ValueError(
                f"begin and size must select at least one of {self.num_examples} examples, not {begin} and {size}"
            )
        is_in_job = seeding.current_job() is not None
        return self._examples.take(positions, may_take_long=not is_in_job), self._labels_of(positions)

    @abstractmethod
    def _drawn_from(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the positions in ``x`` of examples ``start`` to ``stop`` - 1, counted among those to draw from."""

    @abstractmethod
    def _labels_of(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """Return the labels y of the examples at ``positions`` in ``x``."""

    def _caches(self) -> list[ItemCache]:
        return [] if self._examples.cache is None else [self._examples.cache]

    def _begin_epoch(self, epoch: int) -> None:
        self._examples.begin_epoch(self._has_hooks(), self._clock.num_changes)

    def _share(self) -> None:
        self._examples.share()

    def _identity(self) -> list[Any]:
        return [*super()._identity(), *self._examples.identity()]

    def _runs_functions(self) -> bool:
        return self.load_example_fn is not None
