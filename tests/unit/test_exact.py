"""Lists as arrays: strings, masks and integers are what they were."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sampler import MultiShotMemorySampler, SingleShotMemorySampler
from workers import SequenceArray
from workers.batch.exact import exact_array

MASKED = np.ma.masked


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (["a", "bc"], "U2"),
        ([b"a", b"bc"], "S2"),
        (["a\0", "bc"], object),
        ([b"a", "a"], object),
        ([1, "1"], object),
        ([True, "True", 1.5], object),
        ([["a", "b"], ["c", "d\0"]], object),
        ((b"a\0", b""), object),
        ([np.bytes_(b"a\0"), np.bytes_(b"b")], object),
        ([1, 2], np.int64),
        ([1, 2.5], np.float64),
        ([2**53 + 1, 1], np.int64),
        ([2**63, 1], np.uint64),
        ([[2**63, 1], [2, 3]], np.uint64),
        ([np.uint64(2**53 + 1), np.int64(3)], np.int64),
        ([np.uint64(3), np.int64(3)], np.float64),  # as numpy has it
        ([2.0**70, 1.0], np.float64),
        ([np.inf, np.nan, 1], np.float64),
        ([], np.float64),
        ([None, 1], object),
    ],
)
def test_the_values_are_those_of_the_list(values: Any, dtype: Any) -> None:
    array = exact_array(values)
    assert array.dtype == dtype
    found = list(zip(np.array(values, object).ravel().tolist(), array.ravel().tolist(), strict=True))
    assert all(one == other or one != one for one, other in found)
    assert dtype is not object or all(type(one) is type(other) for one, other in found)
    again = exact_array(array)
    assert again is array


def test_integers_that_no_dtype_holds() -> None:
    for make in (exact_array, lambda x: SequenceArray({"x": x}), lambda x: SingleShotMemorySampler(x, None, 1)):
        with pytest.raises(TypeError, match=r"no dtype holds all integers of \[9223372036854775808, -1\]"):
            make([2**63, -1])
    ragged = [np.array([2**63], np.uint64), np.array([1, -1])]
    with pytest.raises(TypeError, match="x must hold arrays of one kind of integers, not of int64 and uint64"):
        SingleShotMemorySampler(ragged, None, 1)
    assert SequenceArray({"x": [2**63, 1]}).batch(2)[0]["x"].tolist() == [2**63, 1]


@pytest.mark.parametrize(
    ("values", "dtype", "mask"),
    [
        ([1, MASKED, 3], np.int64, [0, 1, 0]),
        ([1.5, MASKED], np.float64, [0, 1]),
        (["a", MASKED], "U1", [0, 1]),
        ([MASKED, MASKED], np.float64, [1, 1]),
        ([np.ma.MaskedArray([1, 2], [0, 1]), np.array([3, 4])], np.int64, [[0, 1], [0, 0]]),
        ([np.ma.MaskedArray([1, 2], [0, 1]), MASKED], np.int64, [[0, 1], [1, 1]]),
        ([np.ma.MaskedArray([1, 2])], np.int64, [[0, 0]]),
    ],
)
def test_masks(values: Any, dtype: Any, mask: Any) -> None:
    array = exact_array(values)
    assert isinstance(array, np.ma.MaskedArray)
    assert array.dtype == dtype
    assert np.ma.getmaskarray(array).astype(int).tolist() == mask
    for sample, expected in zip(SequenceArray({"x": values}), array, strict=True):
        assert np.ma.getmaskarray(sample["x"]).tolist() == np.ma.getmaskarray(expected).tolist()


@pytest.mark.parametrize("y", [np.ma.MaskedArray([0, 0, 1], [0, 0, 1]), [0, 0, MASKED]])
def test_masked_labels_and_positions(y: Any) -> None:
    """A masked label is none, and so is a masked position; a mask of which nothing is masked does no harm."""
    with pytest.raises(ValueError, match="y must have a label for each example, but 1 are masked"):
        MultiShotMemorySampler([1, 2, 3], y)
    with pytest.raises(ValueError, match="sampler must not have masked positions"):
        SequenceArray({"x": [1, 2, 3]}, exact_array(y))
    seq = MultiShotMemorySampler([1, 2, 3, 4], np.ma.MaskedArray([0, 0, 1, 1]), seed=1)
    assert type(seq.y) is np.ndarray


def test_masked_uids_are_no_uids() -> None:
    uids = np.ma.MaskedArray([1, 2, 3], [0, 1, 0])
    source = SequenceArray({"uid": uids, "x": np.arange(3)})
    assert [sample["x"] for sample in source.subsample_uids([2, 3, 1], "uid")] == [2, 0]
    assert [sample["x"] for sample in source.subsample_uids(np.ma.MaskedArray([1, 3], [1, 0]), "uid")] == [2]


def test_masked_examples_of_different_shapes() -> None:
    x = [np.ma.MaskedArray([1, 2], [0, 1]), np.ma.MaskedArray([1])]
    with pytest.raises(TypeError, match="x must not hold masked arrays of different shapes: fill them"):
        SingleShotMemorySampler(x, None, 1)
