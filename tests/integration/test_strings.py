"""Strings and bytes arrive as they are: with zeros at their ends, and each of its own length."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from any_workers import WORKERS, Several, epochs_on

from sampler import MultiShotMemorySampler, SingleShotMemorySampler, select_examples
from workers import Sequence, SequenceArray

RAW = [b"ab\0", b"", b"\0\0", b"xyz", b"c\0d", b"\xff\0"]
TEXTS = ["ab\0", "", "\0\0", "\u00fc", "c\0d", "\udc80\0"]
BOTH = [b"a\0", "a\0", b"a", "a", "", b""]
MIXED = [b"a\0", 1, None, 2.5, "a\0", True]
MANY = [b"%d\0" % number for number in range(2000)]


def lengths(x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> Any:
    """An augmenter that says what it was given."""
    return x, np.array([len(each) for each in x])


def shot(x: Any, augmenter: Any = None, **options: Any) -> Sequence:
    return SingleShotMemorySampler(x, augmenter, 4, 3, seed=1, **options)


# What makes a sequence of it, and the strings that it draws from.
SEQUENCES: dict[str, tuple[Callable[[], Sequence], list[Any]]] = {
    "list": (lambda: SequenceArray({"x": RAW}).batch(4), RAW),
    "tuple": (lambda: SequenceArray({"x": tuple(RAW)}).batch(4), RAW),
    "text": (lambda: SequenceArray({"x": TEXTS}).batch(4), TEXTS),
    "rows": (lambda: SequenceArray({"x": [[each, b"y"] for each in RAW]}).batch(4), [[each, b"y"] for each in RAW]),
    "of both types": (lambda: SequenceArray({"x": BOTH}).batch(4), BOTH),
    "among others": (lambda: SequenceArray({"x": MIXED}).batch(4), MIXED),
    "many": (lambda: SequenceArray({"x": MANY}, seed=1).shuffle().batch(1000), MANY),
    "samples": (lambda: SequenceArray({"x": RAW}, np.random.permutation, seed=1).map(dict).batch(4), RAW),
    "part": (lambda: SequenceArray({"x": [*RAW, b"z\0"]}).subsample_uids(RAW, "x").batch(4), RAW),
    "shot": (lambda: shot(RAW), RAW),
    "text, shot": (lambda: shot(TEXTS), TEXTS),
    "rows, shot": (lambda: shot([(each, b"y") for each in RAW]), [[each, b"y"] for each in RAW]),
    "augmenter": (lambda: shot(RAW, lengths), RAW),
    "many, shot": (lambda: SingleShotMemorySampler(MANY, None, 1000, 2, seed=1), MANY),
    "classes": (lambda: MultiShotMemorySampler(RAW, [0, 0, 0, 1, 1, 1], steps_per_epoch=3, seed=1), RAW),
    "loaded": (lambda: shot(range(6), load_example_fn=RAW.__getitem__), RAW),
    "to load": (lambda: shot(RAW, load_example_fn=bytes), RAW),
    "many to load": (lambda: shot(MANY, load_example_fn=bytes), MANY),
}


def several() -> Several:
    return Several({name: make() for name, (make, _) in SEQUENCES.items()})


def x_of(batch: Any) -> Any:
    return batch["x"] if isinstance(batch, dict) else batch[0]


def strings_of(batch: Any) -> Any:
    x = x_of(batch)
    return x.tolist() if isinstance(x, np.ndarray) else x


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
def test_all_sequences(nb_workers: Any, executor: str) -> None:
    """The same values, and of the same types, whoever computes the batches."""
    expected = [{name: strings_of(part) for name, part in batch.items()} for batch in several()]
    for batch in expected:
        for name, strings in batch.items():
            known = {repr(each) for each in SEQUENCES[name][1]}
            assert known >= {repr(each) for each in strings}, name
    batches = epochs_on(several(), nb_workers, executor, epochs=1)[0]
    assert [{name: strings_of(part) for name, part in batch.items()} for batch in batches] == expected
    for batch in batches:
        x, y = batch["augmenter"]
        assert y.tolist() == list(map(len, x))
        assert {x_of(each).dtype for name, each in batch.items() if name != "samples"} == {np.dtype(object)}


def test_all_are_drawn() -> None:
    for name, (make, known) in SEQUENCES.items():
        if name not in ("classes", "many to load"):
            drawn = [each for batch in make() for each in strings_of(batch)]
            assert {repr(each) for each in drawn} == {repr(each) for each in known}, name


@pytest.mark.parametrize("strings", [[b"ab", b"c\0d", b""], ["ab", "c\0d", ""]], ids=["bytes", "text"])
def test_what_numpy_holds_stays_an_array_of_numpy(strings: list[Any]) -> None:
    """So batches of strings that were right are what they were, byte for byte."""
    expected = np.array(strings)
    for x in (SequenceArray({"x": strings}).batch(3)[0]["x"], SingleShotMemorySampler(strings, None, 3)[0][0]):
        assert x.dtype == expected.dtype
        assert sorted(x.tolist()) == sorted(strings)


@pytest.mark.parametrize("long", [b"x" * 2_000_000, "x" * 2_000_000], ids=["bytes", "text"])
def test_one_long_item_does_not_widen_the_others(long: Any) -> None:
    strings = [long[: number % 5] for number in range(500)] + [long]
    tracemalloc.start()
    try:
        batch = SequenceArray({"x": strings}).batch(501)[0]["x"]
        x, _ = SingleShotMemorySampler(strings, None, 501, seed=1)[0]
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 20 * len(long)
    assert batch.tolist() == strings
    assert sorted(x.tolist()) == sorted(strings)


def test_select_examples_and_slices() -> None:
    x, y = select_examples(RAW, [0, 0, 0, 1, 1, 1], seed=1)
    assert sorted(zip(x.tolist(), y.tolist(), strict=True)) == sorted(zip(RAW, [0, 0, 0, 1, 1, 1], strict=True))
    sampler = MultiShotMemorySampler(RAW, [0, 0, 0, 1, 1, 1], seed=1)
    assert sampler.get_slice(1, 3)[0].tolist() == RAW[1:4]
    assert sampler.example_shape == ()
    again = select_examples(sampler.x, [0, 0, 0, 1, 1, 1], seed=1)
    assert again[0].tolist() == x.tolist()


@pytest.mark.parametrize("y", [["a\0", "a"], [b"a\0", b"a"], np.array(["a\0", "a"], object)])
def test_labels_that_numpy_would_make_one(y: Any) -> None:
    with pytest.raises(
        ValueError, match=r"y must not have labels that end in a zero, such as .*two classes may become one"
    ):
        MultiShotMemorySampler([1, 2], y)


@pytest.mark.parametrize("y", [["a", b"a"], [1, "1"]])
def test_labels_of_two_types(y: Any) -> None:
    with pytest.raises(TypeError, match="y must be labels"):
        MultiShotMemorySampler([1, 2], y)


def test_a_state_of_strings_fits_what_it_was() -> None:
    """Whether they are held as numpy's strings or not is no part of a state."""
    state = shot([b"ab", b"c", b"d", b"e", b"f", b"g"]).state_dict()
    shot(RAW).load_state_dict(state)
