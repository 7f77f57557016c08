"""The examples of each class, as positions grouped by class in one array, and the draws of batches from them.

Epoch e has S batches of k out of n classes. With q, r = divmod(S * k, n), each class is drawn q times in it, and r
extra classes are drawn once more::

    the epoch     |  r extra  |  cycle 0: all n  |  cycle 1: all n  |  ...  cycle q - 1  |
    its batches   |  k  |  k  |  k  |  k  |  k  |  ...

The r extra classes are drawn in cycles too, across epochs. So the numbers of draws of any two classes differ by at most
one, within an epoch and over all epochs. How often a class was drawn before a batch need not be counted: it is a sum::

    q * e  +  times it was extra before epoch e  +  1 if it is extra in epoch e  +  the cycle within the epoch

This number selects the examples of the class: use u of a class takes batch u of the draws of that class.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.batch.exact import exact_array
from workers.batch.strings import shared
from workers.job.permutation import SORTED_UP_TO

from .examples import without_framework
from .permutation import KEPT_UP_TO, Draws, num_kept

logger = logging.getLogger("sampler")

#: Up to this many examples in total, each class is shuffled as a whole, and its order is kept.
_MAX_KEPT = 2**21

# A part of the key of each series of draws, so that no two series of one seed are related.
_SELECTION, _EXTRAS, _CLASSES, _EXAMPLES = range(4)


class ClassIndex:
    """The positions of the examples of each class in the data of a sampler, grouped by class.

    Args:
        y: labels (n,), integers or strings; or one-hot or multi-hot rows (n, number of classes).
        num_examples: the length that ``y`` must have.
        class_list: the classes to keep; None: all.
        total_examples_per_class: how many different examples of each class to keep, drawn by ``seed``; None: all.
        seed: the seed of the draws.
        is_told: True if the log has already named the classes with too few examples.

    Attributes:
        y: the labels as an array.
        classes: the labels of the classes kept, ascending; for rows, their columns.
        positions: int64, the positions of all examples kept, class after class; of several labels, in each class.
        has_several: True if some examples have several labels.
        num_examples: the number of different examples kept.
        starts: list of the index in ``positions`` where each class starts, and the end, e.g. [0, 12, 19].

    Raises:
        TypeError, ValueError: an argument has the wrong type or is out of range; the error names it.
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
        examples, classes, number = _classes_of(self.y)
        order = examples[number.argsort(kind="stable")]  # a fast radix sort if number has 16 bits
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
        self.has_several = len(examples) > len(self.y)
        self.num_examples = len(self.examples) if self.has_several else len(self.positions)
        if total_examples_per_class is not None and not is_told:
            self.warn_of_few("total_examples_per_class", total_examples_per_class, "all are kept")

    def with_seed(self, seed: int) -> ClassIndex:
        """Return an index whose choice of ``total_examples_per_class`` examples of each class is drawn by ``seed``."""
        if self._total is None or seed == self.seed:
            return self
        return ClassIndex(self.y, len(self.y), self._class_list, self._total, seed, is_told=True)

    def share(self) -> None:
        """Move the labels and positions into shared memory, for worker processes, if they are large."""
        self.y, self.positions = shared(self.y), shared(self.positions)

    def __len__(self) -> int:
        """Return the number of classes kept."""
        return len(self.classes)

    @property
    def examples(self) -> NDArray[np.int64]:
        """The positions of all examples kept, ascending, each once."""
        return np.unique(self.positions) if self.has_several else np.sort(self.positions)

    def warn_of_few(self, name: str, count: int, then: str) -> None:
        """Log a warning that names the classes with fewer than ``count`` examples, if there are any.

        ``name``: the argument whose value is ``count``. ``then``: what happens to these classes.
        """
        sizes = [stop - start for start, stop in itertools.pairwise(self.starts)]
        few = [f"{label!r} ({size})" for label, size in zip(self.classes.tolist(), sizes, strict=True) if size < count]
        if few:
            logger.warning(
                "%s is %d, but some classes have fewer examples, so %s: %s", name, count, then, ", ".join(few)
            )


def as_labels(y: Any) -> NDArray[Any]:
    """Return ``y`` as an array of labels (n,), or of one-hot or multi-hot rows (n, c).

    Raises:
        TypeError, ValueError: it holds no labels, or some are masked or cannot be kept exactly.
    """
    labels = exact_array(without_framework(y))
    if isinstance(y, np.ma.MaskedArray) or isinstance(labels, np.ma.MaskedArray):
        num_masked = int(np.ma.count_masked(y if isinstance(y, np.ma.MaskedArray) else labels))  # type: ignore[no-untyped-call]
        if num_masked:
            raise ValueError(
                f"y must have a label for each example, but {num_masked} are masked: leave these examples out with "
                "x[~y.mask], y[~y.mask], or give them a class with y.filled()"
            )
        labels = np.ma.getdata(labels)
    if labels.dtype.hasobject or labels.dtype.kind not in "biufSUV":  # objects, or a string dtype of numpy 2
        labels = _of_objects(labels)
    if labels.ndim == 2 and labels.shape[1] > 1 and labels.dtype.kind in "biuf":
        counts = np.count_nonzero(labels, 1)
        if bool((counts == 1).all()):
            return labels
        if bool(((labels == 0) | (labels == 1)).all()):
            num_without = int((counts == 0).sum())
            if num_without:
                raise ValueError(
                    f"{num_without} rows of y have no label, so these examples would never be drawn: leave them out "
                    "with x[y.any(1)], y[y.any(1)], or give them a class of their own"
                )
            return labels
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind == "f" and bool(((labels == np.floor(labels)) & (np.abs(labels) < 2**53)).all()):
        labels = labels.astype(np.int64)
    if labels.ndim != 1 or labels.dtype.kind not in "biuSU":
        raise TypeError(
            "y must be labels (n,), integers or strings, or one-hot or multi-hot rows (n, classes), "
            f"not {labels.dtype} of shape {labels.shape}"
        )
    return labels


def _of_objects(labels: NDArray[Any]) -> NDArray[Any]:
    """Return an object array of only strings or only integers as an array of that type, and any other unchanged."""
    for kind in (str, bytes, int):
        if all(isinstance(label, kind) for label in labels.flat):
            exact = [kind(label) for label in labels.flat]
            made = np.array(exact).reshape(labels.shape)
            cut = next((label for label, of in zip(exact, made.ravel().tolist(), strict=True) if label != of), None)
            if cut is not None and kind is not int:
                raise ValueError(
                    f"y must not have labels that end in a zero, such as {cut!r}: numpy drops the zero, so two classes "
                    "may become one; number the classes instead, or remove the zeros"
                )
            return made
    return labels


def _classes_of(labels: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]:
    """Return (the example of each label; the different classes, ascending; the position of each label's class there).
    An example has several labels if its row has several ones."""
    examples, each = labels.nonzero() if labels.ndim == 2 else (np.arange(len(labels)), labels)
    classes, number = np.unique(each, return_inverse=True)
    return examples, classes, number.astype(np.uint16 if len(classes) <= 2**16 else np.int64)


def _check_class_list(class_list: Any, classes: NDArray[Any]) -> list[int]:
    """Return the positions in ``classes`` of those in ``class_list``, ascending; raise an error if it has others."""
    if isinstance(class_list, (str, bytes)) or not isinstance(class_list, Iterable):
        raise TypeError(f"class_list must be None or a list of classes, not {class_list!r}")
    class_list = without_framework(class_list)
    wanted = class_list.ravel().tolist() if isinstance(class_list, np.ndarray) else list(class_list)
    there = {label: at for at, label in enumerate(classes.tolist())}
    unknown = [label for label in wanted if label not in there]
    if unknown or not wanted:
        some = ", ".join(map(repr, classes.tolist()[:20])) + (", ..." if len(classes) > 20 else "")
        what = f"{unknown[0]!r} is not one of them" if unknown else "it is empty"
        raise ValueError(f"class_list must hold classes of y, but {what}; y has {some}")
    return sorted({there[label] for label in wanted})


def _some(group: NDArray[np.int64], count: int, key: tuple[int, ...]) -> NDArray[np.int64]:
    """Return ``count`` elements of ``group``, drawn by ``key`` (integers), in their order; all if it has no more."""
    if len(group) <= count:
        return group
    return group[np.sort(Draws(len(group), count, *key).view(0))]


class ClassDraws:
    """The random batches of a ClassIndex: ``num_classes`` of its classes, ``examples_per_class`` examples of each.

    Args:
        index: the index to draw from.
        num_classes: the number of classes in a batch, 1 to ``len(index)``.
        examples_per_class: the number of examples of each class, 1 or more.
        steps_per_epoch: the number of batches in an epoch.
        seed: the seed of the draws.

    Raises:
        ValueError: ``num_classes`` is out of range.
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
        self._uses, num_extra = divmod(steps_per_epoch * num_classes, len(index))  # of each class, extras aside
        self._extras = Draws(len(index), num_extra, seed, _EXTRAS) if num_extra else None
        self._epochs: dict[int, _Epoch] = {}
        self._draws: dict[int, Draws] = {}  # {class: the draws of its examples}, made on first use

    def __reduce__(self) -> Any:
        return ClassDraws, (self._index, self.num_classes, self.examples_per_class, self.steps_per_epoch, self.seed)

    def batch(self, epoch: int, batch_id: int) -> NDArray[np.int64]:
        """Return the positions of a batch's examples in x, (num_classes * examples_per_class,), class after class."""
        at = self._epochs.get(epoch) or self._begin(epoch)
        draws, starts, size = self._draws, self._index.starts, self.examples_per_class
        cycle, how_many = at.draws.cycle_of(batch_id)
        parts, begins = [], []
        for number, of in enumerate(at.draws.view(batch_id).tolist()):
            # Cycle -1 is the extras. A class among them has been drawn once more before cycle 0.
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
            self._epochs.pop(old, None)  # another thread may have removed it
        return at


class _Epoch:
    """The order in which the classes are drawn in one epoch, and how often each was used before it."""

    def __init__(self, draws: Draws, uses: list[int], is_extra: list[int]) -> None:
        self.draws = draws  # of classes
        self.uses = uses  # number of uses of each class before the epoch, e.g. [7, 8, 7]
        self.is_extra = is_extra  # 1 or 0 for each class, e.g. [0, 1, 0]
