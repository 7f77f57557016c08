"""Which examples are of which class: the positions of all, grouped by class in one array, and how they are drawn.

Epoch e has S batches of k out of n classes. With q, r = divmod(S * k, n), each class is drawn q times in it, and r of
them once more::

    the epoch     |  r extra  |  cycle 0: all n  |  cycle 1: all n  |  ...  cycle q - 1  |
    its batches   |  k  |  k  |  k  |  k  |  k  |  ...

Which r are extra is itself drawn in cycles through all epochs. So in an epoch, and over all epochs, no two classes
differ by more than one; and how often a class was drawn before a batch is a sum of four numbers, not a count::

    q * e  +  cycles of extras before e  +  whether it was extra in this one  +  its cycle within the epoch

That number says which examples of the class come: the u-th use of a class takes the u-th batch of its own draws.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.batch.strings import shared
from workers.job.permutation import SORTED_UP_TO

from .examples import without_framework
from .permutation import KEPT_UP_TO, Draws, num_kept

logger = logging.getLogger("sampler")

#: Up to this many examples in all, each class is shuffled as a whole and kept.
_MAX_KEPT = 2**21

# What the keys of draws begin with, so that no two series of one seed are related.
_SELECTION, _EXTRAS, _CLASSES, _EXAMPLES = range(4)


class ClassIndex:
    """The examples of each class, by their positions.

    Args:
        y: labels (n,), integers or strings; or one-hot rows (n, number of classes).
        num_examples: what ``y`` must be as long as.
        class_list: the classes to keep; None: all.
        total_examples_per_class: how many different examples of each to keep, drawn by ``seed``; None: all.
        seed: what the draws depend on.
        is_told: the log has named the classes of few examples before.

    Attributes:
        y: the labels as an array, as they were given.
        classes: the labels of the classes kept, ascending; of one-hot rows, their columns.
        positions: int64, of all examples kept, class after class.
        starts: list, where in ``positions`` each class begins, and the end.

    Raises:
        TypeError, ValueError: an argument is not of its kind or out of its range; names it.
    """

    def __init__(
        self,
        y: Any,
        num_examples: int,
        class_list: Any = None,
        total_examples_per_class: int | None = None,
        seed: int = 0,
        *,
        is_told: bool = False,
    ) -> None:
        self.seed = seed
        self._class_list, self._total = class_list, total_examples_per_class
        self.y = as_labels(y)
        if len(self.y) != num_examples:
            raise ValueError(f"x and y must be of the same length, not {num_examples} and {len(self.y)}")
        classes, number = _classes_of(self.y)
        order = number.argsort(kind="stable")  # a counting sort: number is of 16 bits where that is enough
        starts = [0, *np.bincount(number, minlength=len(classes)).cumsum().tolist()]
        groups = [order[start:stop] for start, stop in itertools.pairwise(starts)]
        if class_list is not None:
            kept = _check_class_list(class_list, classes)
            classes, groups = classes[kept], [groups[at] for at in kept]
        if total_examples_per_class is not None:
            groups = [_some(group, total_examples_per_class, (seed, _SELECTION, at)) for at, group in enumerate(groups)]
        self.classes = classes
        self.positions = np.concatenate(groups)
        self.starts = [0, *np.cumsum([len(group) for group in groups]).tolist()]
        if total_examples_per_class is not None and not is_told:
            self.warn_of_few("total_examples_per_class", total_examples_per_class, "all are kept")

    def with_seed(self, seed: int) -> ClassIndex:
        """The same index for draws of ``seed``, on which the choice of ``total_examples_per_class`` depends."""
        if self._total is None or seed == self.seed:
            return self
        return ClassIndex(self.y, len(self.y), self._class_list, self._total, seed, is_told=True)

    def share(self) -> None:
        """Hold the labels and positions in shared memory, where they are many."""
        self.y, self.positions = shared(self.y), shared(self.positions)

    def __len__(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    def warn_of_few(self, name: str, count: int, then: str) -> None:
        """Name in the log the classes that have less than ``count`` examples, which argument ``name`` asks for."""
        sizes = [stop - start for start, stop in itertools.pairwise(self.starts)]
        few = [f"{label!r} ({size})" for label, size in zip(self.classes.tolist(), sizes, strict=True) if size < count]
        if few:
            logger.warning(
                "%s is %d, but some classes have fewer examples, so %s: %s", name, count, then, ", ".join(few)
            )


def as_labels(y: Any) -> NDArray[Any]:
    """``y`` as an array of labels (n,), or of one-hot rows (n, c)."""
    labels = np.asarray(without_framework(y))
    if labels.dtype.hasobject or labels.dtype.kind not in "biufSUV":  # or a string type of numpy 2
        labels = _of_objects(labels)
    is_one_hot = labels.ndim == 2 and labels.shape[1] > 1 and labels.dtype.kind in "biuf"
    if is_one_hot and bool(((labels != 0).sum(1) == 1).all()):
        return labels
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind == "f" and bool(((labels == np.floor(labels)) & (np.abs(labels) < 2**53)).all()):
        labels = labels.astype(np.int64)
    if labels.ndim != 1 or labels.dtype.kind not in "biuSU":
        raise TypeError(
            "y must be labels (n,), integers or strings, or one-hot rows (n, classes), "
            f"not {labels.dtype} of shape {labels.shape}"
        )
    return labels


def _of_objects(labels: NDArray[Any]) -> NDArray[Any]:
    """Strings or integers that numpy has as objects, as an array of their kind."""
    for kind in (str, int):
        if all(isinstance(label, kind) for label in labels.flat):
            return np.array([kind(label) for label in labels.flat]).reshape(labels.shape)
    return labels


def _classes_of(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """(the classes, ascending; for each label its position in them)."""
    classes, number = np.unique(labels.argmax(1) if labels.ndim == 2 else labels, return_inverse=True)
    return classes, number.astype(np.uint16 if len(classes) <= 2**16 else np.int64)


def _check_class_list(class_list: Any, classes: NDArray[Any]) -> list[int]:
    """Where in ``classes`` those of ``class_list`` are."""
    if isinstance(class_list, (str, bytes)) or not isinstance(class_list, Iterable):
        raise TypeError(f"class_list must be None or classes, not {class_list!r}")
    class_list = without_framework(class_list)
    wanted = class_list.ravel().tolist() if isinstance(class_list, np.ndarray) else list(class_list)
    there = {label: at for at, label in enumerate(classes.tolist())}
    unknown = [label for label in wanted if label not in there]
    if unknown or not wanted:
        some = ", ".join(map(repr, classes.tolist()[:20])) + (", ..." if len(classes) > 20 else "")
        what = f"{unknown[0]!r} is none of them" if unknown else "it is empty"
        raise ValueError(f"class_list must be of classes that y has, but {what}; there are {some}")
    return sorted({there[label] for label in wanted})


def _some(group: NDArray[np.int64], count: int, key: tuple[int, ...]) -> NDArray[np.int64]:
    """``count`` of a group, drawn by ``key``, in their order; all, if there are no more."""
    if len(group) <= count:
        return group
    return group[np.sort(Draws(len(group), count, *key).view(0))]


class ClassDraws:
    """The batches of an index: ``num_classes`` of its classes, ``examples_per_class`` examples of each.

    Args:
        index: what to draw from.
        num_classes: classes in a batch, 1 to ``len(index)``.
        examples_per_class: examples of each, 1 or more.
        steps_per_epoch: batches in an epoch.
        seed: what the draws depend on.

    Raises:
        ValueError: there are not as many classes.
    """

    def __init__(
        self, index: ClassIndex, num_classes: int, examples_per_class: int, steps_per_epoch: int, seed: int
    ) -> None:
        if not 1 <= num_classes <= len(index):
            raise ValueError(f"classes_per_batch must be 1 to {len(index)}, the number of classes, not {num_classes}")
        self.num_classes = num_classes
        self.examples_per_class = examples_per_class
        self._index = index
        self.steps_per_epoch = steps_per_epoch
        self.seed = seed
        self._uses, num_extra = divmod(steps_per_epoch * num_classes, len(index))  # of each class in an epoch
        self._extras = Draws(len(index), num_extra, seed, _EXTRAS) if num_extra else None
        self._epochs: dict[int, _Epoch] = {}
        self._draws: dict[int, Draws] = {}  # {class: its examples}, made when they are needed

    def __reduce__(self) -> Any:
        return ClassDraws, (self._index, self.num_classes, self.examples_per_class, self.steps_per_epoch, self.seed)

    def batch(self, epoch: int, batch_id: int) -> NDArray[np.int64]:
        """Positions (num_classes * examples_per_class,), class after class."""
        at = self._epochs.get(epoch) or self._begin(epoch)
        draws, starts, size = self._draws, self._index.starts, self.examples_per_class
        cycle, how_many = at.draws.cycle_of(batch_id)
        parts, begins = [], []
        for number, of in enumerate(at.draws.view(batch_id).tolist()):
            # Cycle -1 are the extras; who was one of them has been drawn once more before cycle 0.
            in_cycle = cycle if number < how_many else cycle + 1
            uses = at.uses[of] + (in_cycle + at.is_extra[of] if in_cycle >= 0 else 0)
            known = draws.get(of) or self._draws_of(of)
            parts.append(known.view(uses) if known.k == size else known.run(uses * size, (uses + 1) * size))
            begins.append(starts[of])
        within = np.concatenate(parts)
        within += np.array(begins).repeat(size)
        return self._index.positions.take(within)

    def _draws_of(self, of: int) -> Draws:
        size = self._index.starts[of + 1] - self._index.starts[of]
        total = len(self._index.positions)
        self._draws[of] = draws = Draws(
            size,
            self.examples_per_class if size >= self.examples_per_class else 1,
            self.seed,
            _EXAMPLES,
            of,
            kept=num_kept(total),
            sorted_up_to=KEPT_UP_TO if total <= _MAX_KEPT else SORTED_UP_TO,
        )
        return draws

    def _begin(self, epoch: int) -> _Epoch:
        num_classes = len(self._index)
        is_extra = np.zeros(num_classes, np.int64)
        uses = np.full(num_classes, self._uses * epoch)
        extras: NDArray[np.int64] = np.empty(0, np.int64)
        if self._extras is not None:
            extras = self._extras.batch(epoch)
            is_extra[extras] = 1
            cycles, begun = divmod(epoch * self._extras.k, num_classes)
            uses += cycles
            uses[self._extras.run(cycles * num_classes, cycles * num_classes + begun)] += 1
        draws = Draws(
            num_classes, self.num_classes, self.seed, _CLASSES, epoch, first=extras, kept=num_kept(num_classes)
        )
        self._epochs[epoch] = at = _Epoch(draws, uses.tolist(), is_extra.tolist())
        for old in list(self._epochs)[:-2]:
            self._epochs.pop(old, None)  # another thread may have
        return at


class _Epoch:
    """What is known of an epoch before its first batch."""

    def __init__(self, draws: Draws, uses: list[int], is_extra: list[int]) -> None:
        self.draws = draws  # of its classes
        self.uses = uses  # of each class before the epoch
        self.is_extra = is_extra  # 1 or 0 for each class
