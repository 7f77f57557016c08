"""Sample from data sets of TensorFlow Datasets, which is imported with TensorFlow only when a sampler is created."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.batch.exact import exact_array
from workers.batch.strings import Strings
from workers.checks import check_choice

from .augmenter import AugmenterFunction
from .memory.samplers import MultiShotMemorySampler

PreprocessFunction = Callable[[Any, Any], tuple[Any, Any]]

_READ_AT_ONCE = 256  # examples


class TFDatasetMultiShotMemorySampler(MultiShotMemorySampler):
    """A :class:`MultiShotMemorySampler` of a data set of TensorFlow Datasets.

    Args:
        dataset_name: the name of the data set for ``tfds.load``, such as ``"mnist"`` or ``"cifar10:3.0.2"``.
        classes_per_batch: the number of classes in a batch.
        x_key, y_key: the names of the features that hold the examples and their labels.
        splits: one or more splits, or slices of them such as ``"train[:10%]"``.
        examples_per_class_per_batch: the number of examples of each class.
        steps_per_epoch: the number of batches in an epoch.
        class_list: the classes to draw from; None for all.
        total_examples_per_class: how many examples of each class to draw from; None for all.
        preprocess_fn: a function ``(x, y) -> (x, y)`` of one example, as numpy arrays, which may resize x, for example.
            It is called once for each example while the data set is read. With ``in_memory=False``, it is called each
            time an example is drawn, and the y that it returns is ignored.
        augmenter: see :class:`Sampler`.
        warmup: the number of epochs at the start in which ``is_warmup`` is True; 0 or less for none.
        data_dir: the folder of the prepared data sets; None for the default of TensorFlow Datasets.
        download: True to download and prepare the data set if it is not in ``data_dir``.
        in_memory: True to read the whole data set now; False to read examples from their files when they are drawn, in
            the workers. With False, the data set must have been prepared with ``file_format="array_record"``.
        num_augmentations_per_example: how many examples the augmenter is asked to return for each that it gets.
        seed: the seed of all random draws; if it is None, a seed is drawn once and kept in ``seed``.

    Raises:
        TypeError, ValueError: an argument has the wrong type or is out of range. For an unknown key, the error lists
            the known ones. Errors of ``tfds`` about data sets that it cannot find or prepare are passed on.

    Source: TensorFlow Similarity API, ``TFSimilarity.samplers.TFDatasetMultiShotMemorySampler``.
    """

    def __init__(
        self,
        dataset_name: str,
        classes_per_batch: int,
        x_key: str = "image",
        y_key: str = "label",
        splits: str | Sequence[str] = ("train", "test"),
        examples_per_class_per_batch: int = 2,
        steps_per_epoch: int = 1000,
        class_list: Any = None,
        total_examples_per_class: int | None = None,
        preprocess_fn: PreprocessFunction | None = None,
        augmenter: AugmenterFunction | None = None,
        warmup: int = -1,
        *,
        data_dir: str | os.PathLike[str] | None = None,
        download: bool = True,
        in_memory: bool = True,
        num_augmentations_per_example: int = 1,
        seed: int | None = None,
    ) -> None:
        if preprocess_fn is not None and not callable(preprocess_fn):
            raise TypeError(
                f"preprocess_fn must be None or callable as preprocess_fn(x, y), not {preprocess_fn!r:.200}"
            )
        names = [splits] if isinstance(splits, str) else list(splits)
        if not names or not all(isinstance(name, str) for name in names):
            raise TypeError(f"splits must be the name of a split, or a list of them, not {splits!r}")
        read = _read if check_choice("in_memory", in_memory, (True, False)) else _open
        builder = _builder(dataset_name, data_dir, download, {"x_key": x_key, "y_key": y_key})
        x, y, load_example_fn = read(builder, names, x_key, y_key, preprocess_fn)
        self.dataset_name, self.data_dir, self.download, self.in_memory = dataset_name, data_dir, download, in_memory
        self.x_key, self.y_key, self.splits, self.preprocess_fn = x_key, y_key, names, preprocess_fn
        super().__init__(
            x,
            y,
            classes_per_batch,
            examples_per_class_per_batch,
            steps_per_epoch,
            class_list,
            total_examples_per_class,
            augmenter,
            warmup,
            load_example_fn=load_example_fn,
            num_augmentations_per_example=num_augmentations_per_example,
            seed=seed,
        )

    def __getstate__(self) -> dict[str, Any]:
        # Data in memory is already preprocessed, so workers do not need preprocess_fn, which may be unpicklable.
        return {**self.__dict__, "preprocess_fn": None} if self.in_memory else self.__dict__


def _builder(name: str, data_dir: Any, download: bool, keys: dict[str, str]) -> Any:
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir)
    known = sorted(builder.info.features or {})
    for argument, key in keys.items():
        if key not in known:
            raise ValueError(f"{argument} must be a feature of {name}, not {key!r}; it has {', '.join(known)}")
    if download:
        builder.download_and_prepare()
    return builder


# The result of _read and of _open: (x, y, load_example_fn).
_Read = tuple[Any, Any, Callable[[Any], Any] | None]


def _read(builder: Any, splits: list[str], x_key: str, y_key: str, preprocess_fn: PreprocessFunction | None) -> _Read:
    """Read the data set into memory, and return (x, y, None): all examples, their labels and no load_example_fn."""
    from workers.sequence.progress import Bar

    total = sum(int(builder.info.splits[split].num_examples) for split in splits)
    x, y = _Stacked(total, x_key), _Stacked(total, y_key)
    with Bar(total=total, desc=f"reading {builder.name}", unit=" examples") as progress:
        for xs, ys in _decoded(builder, splits, x_key, y_key, preprocess_fn is None):
            if preprocess_fn is None:
                x.add(xs)
                y.add(ys)
            else:
                one_x, one_y = _preprocessed(preprocess_fn, xs[0], ys[0])
                x.add(_row(one_x))
                y.add(_row(one_y))
            progress.update(len(xs))
    if preprocess_fn is None:
        return x.whole(), y.whole(), None
    return _as_strings(x.whole()), _as_strings(y.whole()), None


def _decoded(builder: Any, splits: list[str], x_key: str, y_key: str, may_be_many: bool) -> Iterator[tuple[Any, Any]]:
    """Yield (x, y) of one or more examples at a time, decoded by tf.data, or by threads if tf.data cannot do so."""
    import tensorflow_datasets as tfds

    only = tfds.decode.PartialDecoding(dict.fromkeys((x_key, y_key), True))
    try:
        datasets = builder.as_dataset(split=splits, decoders=only, shuffle_files=False)
    except NotImplementedError:
        with ThreadPoolExecutor() as threads:
            for source in builder.as_data_source(split=splits):
                for start in range(0, len(source), _READ_AT_ONCE):
                    positions = range(start, min(start + _READ_AT_ONCE, len(source)))
                    for record in threads.map(source.__getitem__, positions):
                        yield _row(record[x_key]), _row(record[y_key])
        return
    for dataset in datasets:
        is_of_one_shape = bool(dataset.element_spec[x_key].shape.is_fully_defined())
        examples = dataset.batch(_READ_AT_ONCE if may_be_many and is_of_one_shape else 1)
        for read in examples.as_numpy_iterator():
            yield read[x_key], read[y_key]


def _preprocessed(preprocess_fn: PreprocessFunction, x: Any, y: Any) -> tuple[Any, Any]:
    pair = preprocess_fn(_as_array(x), _as_array(y))
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise TypeError(f"preprocess_fn must return (x, y), not a {type(pair).__name__}")
    if np.ma.is_masked(pair[1]):
        raise TypeError("preprocess_fn must not return a masked y")
    return pair[0], pair[1]


def _as_array(value: Any) -> NDArray[Any]:
    """Return ``value`` as an array; a string that ends in NULs is kept as an object, as numpy would drop the NULs."""
    is_cut = isinstance(value, (str, bytes)) and np.asarray(value).item() != value
    return np.asarray(value, object if is_cut else None)


def _row(value: Any) -> NDArray[Any]:
    """Return ``value`` as an array of one example, (1, ...); a string becomes an object, so that lengths may differ."""
    if np.ma.is_masked(value):
        raise TypeError(
            "preprocess_fn returned a masked array, which cannot be kept in memory: fill it, or use in_memory=False"
        )
    array = _as_array(value)
    return array.astype(object)[None] if array.ndim == 0 and array.dtype.kind in "SU" else array[None]


def _as_strings(array: NDArray[Any]) -> NDArray[Any]:
    """Convert ``array`` to numpy strings if it holds strings that they preserve; otherwise return it as it is."""
    values = array.tolist() if array.dtype.hasobject and array.ndim == 1 else None
    are_strings = values and all(isinstance(each, (str, bytes)) for each in values)
    return exact_array(values) if are_strings and not Strings.must_hold(values) else array


class _Stacked:
    """An array of ``total`` examples, filled piece by piece to save memory; its dtype is widened when necessary."""

    def __init__(self, total: int, key: str) -> None:
        self._array: NDArray[Any] | None = None
        self._total = total
        self._key = key
        self._filled = 0

    def add(self, some: NDArray[Any]) -> None:
        if self._array is None:
            self._array = np.empty((self._total, *some.shape[1:]), some.dtype)
        if some.shape[1:] != self._array.shape[1:]:
            raise ValueError(
                f"the examples of feature {self._key!r} must be of one shape, not {self._array.shape[1:]} and "
                f"{some.shape[1:]}; make them so in preprocess_fn, or use in_memory=False, which reads them one by one"
            )
        if some.dtype != self._array.dtype:
            filled = self._array[: self._filled]
            self._array = np.empty(self._array.shape, self._dtype_with(some.dtype))
            self._array[: self._filled] = filled
        self._array[self._filled : self._filled + len(some)] = some
        self._filled += len(some)

    def _dtype_with(self, other: np.dtype[Any]) -> np.dtype[Any]:
        """Return the common dtype of the examples so far and of dtype ``other``; raise TypeError if there is none."""
        assert self._array is not None
        mine = self._array.dtype
        try:
            both = np.result_type(mine, other)
        except TypeError:  # e.g. a date and a number
            both = np.dtype(object)
        are_integers = mine.kind in "iu" and other.kind in "iu" and both.kind == "f"  # e.g. int64 and uint64
        if both.hasobject or are_integers or (both.kind in "SU" and mine.kind != other.kind):
            raise TypeError(
                f"the examples of feature {self._key!r} must be of one kind, not {mine} for the first {self._filled} "
                f"and {other} for the next: no numpy dtype holds both; have preprocess_fn return one kind"
            )
        return both

    def whole(self) -> NDArray[Any]:
        return np.empty(0) if self._array is None else self._array[: self._filled]


def _open(builder: Any, splits: list[str], x_key: str, y_key: str, preprocess_fn: PreprocessFunction | None) -> _Read:
    """Open the data set for random access, read only its labels, and return (records, labels, load_example_fn)."""
    import tensorflow_datasets as tfds

    from workers.sequence.progress import Bar

    try:
        sources = builder.as_data_source(split=splits)
        skipped = {key: tfds.decode.SkipDecoding() for key in builder.info.features if key != y_key}
        of_labels = builder.as_data_source(split=splits, decoders=skipped)
    except NotImplementedError as error:
        raise ValueError(
            f"in_memory=False needs a random-access format, but {builder.name} is stored as "
            f"{builder.info.file_format.value}; prepare it with file_format='array_record'"
        ) from error
    total = sum(map(len, of_labels))
    records = Bar(itertools.chain(*of_labels), total=total, desc=f"reading {builder.name}", unit=" labels")
    y = exact_array([record[y_key] for record in records])
    return _Records(sources), y, _Decoder(x_key, y_key, preprocess_fn)


class _Records:
    """The records of several sources as one sequence, one source after the other."""

    def __init__(self, sources: Sequence[Any]) -> None:
        self._sources = list(sources)
        self._ends = np.cumsum([len(source) for source in sources])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, position: int) -> Any:
        of = int(self._ends.searchsorted(position, side="right"))
        before = int(self._ends[of - 1]) if of else 0
        return self._sources[of][position - before]


class _Decoder:
    """A ``load_example_fn`` that returns the x of a record, preprocessed by ``preprocess_fn`` if there is one."""

    def __init__(self, x_key: str, y_key: str, preprocess_fn: PreprocessFunction | None) -> None:
        self._x_key = x_key
        self._y_key = y_key
        self._preprocess_fn = preprocess_fn

    def __call__(self, record: Any) -> Any:
        if self._preprocess_fn is None:
            return record[self._x_key]
        return _preprocessed(self._preprocess_fn, record[self._x_key], record[self._y_key])[0]
