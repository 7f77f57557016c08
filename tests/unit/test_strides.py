"""Arrays that are not dense lie in a worker as they lie here: their sums are the same to the last bit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import workers
from workers.process import replica
from workers.process.replica import Parcel, Pickled

pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")


def there_and_back(array: Any) -> tuple[Any, Parcel]:
    parcel = Parcel(Pickled([array]))
    return replica.load(parcel.message(), [os.dup(file) for file in parcel.descriptors])[0], parcel


def cube() -> Any:
    return np.random.default_rng(0).random((60, 70, 80))


def fields() -> Any:
    array = np.zeros(20_000, [("a", "i1"), ("b", "<f8"), ("c", "<f4")])
    array["b"] = np.random.default_rng(1).random(20_000)
    return array


LAYOUTS: dict[str, tuple[Callable[[], Any], bool]] = {  # (array, whether it has the same strides)
    "transposed": (lambda: cube().transpose(1, 2, 0), True),
    "reversed": (lambda: cube()[::-1, :, ::-1], True),
    "reversed, flat": (lambda: cube().ravel()[::-1], True),
    "columns": (lambda: cube()[:, :, :50], True),
    "every other": (lambda: cube()[::2], True),
    "in steps": (lambda: cube()[:, ::2, ::-2], False),
    "in long steps": (lambda: cube()[::2, ::3, ::-5], False),
    "transposed, in steps": (lambda: cube().transpose(2, 0, 1)[:, ::3], False),
    "broadcast": (lambda: np.broadcast_to(cube()[0], (50, 70, 80)), True),
    "broadcast at the end": (lambda: np.broadcast_to(cube()[:, :, :1], (60, 70, 80)), False),
    "windows": (lambda: np.lib.stride_tricks.sliding_window_view(cube()[0], (5, 5)), True),
    "a field": (lambda: fields()["b"], True),
    "a field in steps": (lambda: fields()["b"][::9], False),
    "at an odd address": (lambda: np.frombuffer(b"x" + cube().tobytes(), offset=1), True),
    "other floats": (lambda: cube().astype(np.float32).transpose(2, 0, 1), True),
    "small": (lambda: cube()[0, :5].T[::-1, 1:], True),
    "a few of many": (lambda: cube()[::20, ::30, ::-20], False),
    "a matrix": (lambda: np.asmatrix(cube()[:, :, 0])[::2, ::-1], False),
    "F": (lambda: np.asfortranarray(cube()), True),
}


def sums(array: Any) -> list[bytes]:
    array = np.asarray(array)
    along = [np.asarray(array.sum(axis=axis)) for axis in range(array.ndim)]
    others = array.sum(), array.mean(), array.std(), (array * array).sum(), array.astype(np.float32).sum()
    return [each.tobytes() for each in [*along, *map(np.asarray, others)]]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sums_are_the_same(layout: str) -> None:
    make, is_same = LAYOUTS[layout]
    array = make()
    got, parcel = there_and_back(array)
    assert type(got) is type(array)
    assert (got.shape, got.dtype) == (array.shape, array.dtype)
    assert (got.strides == array.strides) is is_same
    assert got.flags.aligned == array.flags.aligned
    assert np.array_equal(got, array)
    assert sums(got) == sums(array)
    assert sum(piece.nbytes for piece in parcel.pieces) <= 2.2 * array.nbytes + 10_000
    assert parcel.compare(Pickled([array])).is_same


def test_what_repeats_is_sent_once() -> None:
    for layout in ("broadcast", "windows"):
        array = LAYOUTS[layout][0]()
        _, parcel = there_and_back(array)
        assert sum(piece.nbytes for piece in parcel.pieces) < array.nbytes / 20


@pytest.mark.parametrize("shape", [(3, 4), (200, 300)], ids=["small", "large"])
@pytest.mark.parametrize("is_masked", [False, True])
def test_masked_arrays_keep_all(shape: tuple[int, int], is_masked: bool) -> None:
    numbers = np.random.default_rng(0).random(shape)
    mask = numbers > 0.5 if is_masked else np.ma.nomask
    for array in (
        np.ma.MaskedArray(numbers, mask, fill_value=-3.5, hard_mask=True),
        np.ma.MaskedArray(numbers, mask)[:, ::-1].T,
        np.ma.MaskedArray(np.asmatrix(numbers), mask),
    ):
        got, _ = there_and_back(array)
        assert type(got) is np.ma.MaskedArray
        assert got.data.strides == array.data.strides
        assert type(got.data) is type(array.data)
        assert np.array_equal(got.data, array.data)
        assert got.mask.tolist() == array.mask.tolist()
        assert (got.fill_value, got.hardmask) == (array.fill_value, array.hardmask)
        assert got.sum().tobytes() == array.sum().tobytes()
        assert got.filled().tolist() == array.filled().tolist()


def test_parts_of_a_mapped_file_are_opened_as_they_lie(tmp_path: Path) -> None:
    """None is read, and what is written to the file is seen."""
    file = np.memmap(tmp_path / "x", np.float64, "w+", offset=48, shape=(60, 70, 80))
    file[...] = cube()
    views = [file[::2], file.transpose(1, 2, 0), file[1:, ::-1, ::3], np.asarray(file)[:, :50], file[3:], file.T]
    parcel = Parcel(Pickled(views))
    assert sum(piece.nbytes for piece in parcel.pieces) < 20_000
    theirs = replica.load(parcel.message(), [os.dup(each) for each in parcel.descriptors])
    file[...] += 1
    for mine, got in zip(views, theirs, strict=True):
        assert got.strides == mine.strides
        assert np.array_equal(got, mine)
        assert not got.flags.writeable
    assert max(each.nbytes for each in parcel.files) == os.stat(tmp_path / "x").st_size
    os.truncate(tmp_path / "x", 2_000_000)
    for again in map(Pickled, views):
        parcel = Parcel(again)
        with pytest.raises(ValueError, match="is too short"):
            replica.load(parcel.message(), [os.dup(each) for each in parcel.descriptors])


@pytest.mark.parametrize("layout", ["transposed", "F", "reversed", "in steps", "broadcast"])
def test_batches_of_a_sequence_array_lie_the_same_with_workers(layout: str) -> None:
    """Then its data is in shared memory."""
    array = LAYOUTS[layout][0]()
    batches = []
    for is_shared in (False, True):
        of = workers.SequenceArray({"x": array}).batch(5)
        if is_shared:
            of._share()
        batches.append(next(iter(of))["x"])
    assert batches[0].strides == batches[1].strides
    assert sums(batches[0]) == sums(batches[1])
