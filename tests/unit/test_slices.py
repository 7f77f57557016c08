"""Slices of what SingleShotMemorySampler holds; those of MultiShotMemorySampler are in test_multi_shot."""

from __future__ import annotations

import numpy as np
import pytest

from sampler import SingleShotMemorySampler


def test_get_slice() -> None:
    """As of MultiShotMemorySampler: examples in the order of x, y their positions."""
    x = np.arange(20.0).reshape(10, 2)
    seq = SingleShotMemorySampler(x, None, class_per_batch=3)
    for options, expected in [
        ({}, [*range(10)]),
        ({"begin": 4, "size": 3}, [4, 5, 6]),
        ({"begin": 8, "size": 9}, [8, 9]),
    ]:
        got, y = seq.get_slice(**options)
        assert y.tolist() == expected
        assert y.dtype == np.int32
        assert np.array_equal(got, x[y])
        got[:] = 0  # nobody else's
    assert x[1, 1] == 3
    assert np.array_equal(seq.get_slice()[0], x)
    loaded, y = SingleShotMemorySampler(
        [*"abcd"], None, 3, load_example_fn=lambda name: np.array([ord(name)])
    ).get_slice(1, 2)
    assert (loaded.tolist(), y.tolist()) == ([[98], [99]], [1, 2])
    for wrong in ({"begin": 10}, {"begin": -1}, {"size": 0}, {"size": -2}):
        with pytest.raises(ValueError, match=r"begin|size"):
            seq.get_slice(**wrong)
    with pytest.raises(TypeError, match="begin must be an integer"):
        seq.get_slice(0.5)  # type: ignore[arg-type]
