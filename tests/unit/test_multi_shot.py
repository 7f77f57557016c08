"""MultiShotMemorySampler: exactly balanced, nothing again before its class is used up, a function of its place."""

from __future__ import annotations

import itertools
import logging
import pickle
import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sampler import MultiShotMemorySampler, load_image, select_examples
from sampler.memory.class_index import ClassDraws, ClassIndex
from workers import current_rng

SIZES = [7, 12, 30, 5, 9]
Y = np.repeat([3, 1, 4, 5, 9], SIZES)[np.random.default_rng(0).permutation(sum(SIZES))]
X = np.arange(len(Y))


def sampler(x: Any = X, y: Any = Y, *args: Any, **options: Any) -> MultiShotMemorySampler:
    return MultiShotMemorySampler(x, y, *args, **{"seed": 1, **options})


@settings(deadline=None, max_examples=150)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=12),
    wanted=st.integers(1, 12),
    examples=st.integers(1, 6),
    steps=st.integers(1, 12),
    seed=st.integers(0, 2**63 - 1),
)
def test_what_is_drawn(sizes: list[int], wanted: int, examples: int, steps: int, seed: int) -> None:
    """Every batch is balanced; classes and the examples of each are used evenly, for ever."""
    num_classes = min(wanted, len(sizes))
    y = np.repeat(np.arange(len(sizes)), sizes)
    draws = ClassDraws(ClassIndex(y, len(y)), num_classes, examples, steps, seed)
    used: Counter[int] = Counter()
    drawn: dict[int, list[int]] = {of: [] for of in range(len(sizes))}
    for epoch in range(5):
        in_epoch: Counter[int] = Counter(dict.fromkeys(range(len(sizes)), 0))
        for batch_id in range(steps):
            positions = draws.batch(epoch, batch_id)
            of_each = y[positions].reshape(num_classes, examples)
            assert (of_each == of_each[:, :1]).all()
            classes = of_each[:, 0].tolist()
            assert len(set(classes)) == num_classes
            in_epoch.update(classes)
            for of, some in zip(classes, positions.reshape(num_classes, examples).tolist(), strict=True):
                assert len(set(some)) == min(examples, max(sizes[of], 1)) or sizes[of] < examples
                drawn[of] += some
        assert max(in_epoch.values()) - min(in_epoch.values()) <= 1
        used.update(in_epoch)
        assert max(used.values()) - min(used[of] for of in drawn) <= 1
    for of, some in drawn.items():
        for start in range(0, len(some) - sizes[of] + 1, sizes[of]):
            assert len(set(some[start : start + sizes[of]])) == sizes[of]


@settings(deadline=None, max_examples=40)
@given(shuffle=st.randoms(use_true_random=False), num_classes=st.integers(1, 5), seed=st.integers(0, 9))
def test_any_order_of_asking(shuffle: Any, num_classes: int, seed: int) -> None:
    """A batch is a function of (seed, epoch, batch_id), also for a copy, and whatever was asked before."""
    make = lambda: ClassDraws(ClassIndex(Y, len(Y)), num_classes, 4, 7, seed)  # noqa: E731
    in_order = make()
    places = list(itertools.product(range(6), range(7)))
    expected = {place: in_order.batch(*place).tolist() for place in places}
    shuffle.shuffle(places)
    mixed = make()
    assert {place: mixed.batch(*place).tolist() for place in places} == expected
    copy = pickle.loads(pickle.dumps(mixed))
    assert copy.batch(*places[0]).tolist() == make().batch(*places[0]).tolist() == expected[places[0]]


def test_the_same_where_there_are_too_many_to_keep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large data sets are drawn from by another permutation, with the same promises."""
    monkeypatch.setattr("sampler.memory.class_index._MAX_KEPT", 10)
    y = np.repeat(np.arange(3), 3000)
    draws = ClassDraws(ClassIndex(y, len(y)), 2, 64, 50, 1)
    drawn: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for epoch, batch_id in itertools.product(range(3), range(50)):
        positions = draws.batch(epoch, batch_id).reshape(2, 64)
        for some in positions:
            drawn[int(y[some[0]])] += some.tolist()
            assert len(set(some.tolist())) == 64
    for some_of in drawn.values():
        assert len(some_of) == 6400
        assert sorted(some_of[:3000]) == sorted(some_of[3000:6000])


def test_batches() -> None:
    seq = sampler(X * 10, classes_per_batch=3, examples_per_class_per_batch=4, steps_per_epoch=6)
    assert len(seq) == 6
    assert seq.num_examples == len(X)
    assert seq.example_shape == ()
    for x, y in seq:
        assert x.shape == y.shape == (12,)
        assert (Y[x // 10] == y).all()
        assert len(set(y.tolist())) == 3
    x, y = seq.get_examples(0, 2, 1)
    assert len(set(y.tolist())) == 2


def test_it_does_not_write_to_the_users_data() -> None:
    def spoil(x: Any, y: Any, num: int, is_warmup: bool) -> Any:
        x[:] = y[:] = -1
        return x, y

    x, y = X.copy(), Y.copy()
    list(sampler(x, y, augmenter=spoil, steps_per_epoch=5))
    assert (x == X).all()
    assert (y == Y).all()


def test_the_augmenter_is_told_what_to_do() -> None:
    told = []

    def augment(x: Any, y: Any, num: int, is_warmup: bool) -> Any:
        told.append((len(x), num, is_warmup))
        return np.tile(x, num) + current_rng().random(), np.tile(y, num)

    seq = sampler(augmenter=augment, warmup=1, num_augmentations_per_example=3, steps_per_epoch=1)
    assert [len(x) for x, _ in [*seq, *seq]] == [12, 12]
    assert told == [(4, 3, True), (4, 3, False)]


LABELS: dict[str, Any] = {
    "int8": np.array([3, 1, 4], np.int8),
    "uint64": np.array([2**63, 1, 4], np.uint64),
    "negative": np.array([-3, -(2**40), 4]),
    "bool": np.array([True, False]),
    "str": np.array(["cat", "owl", "dog"]),
    "bytes": np.array([b"cat", b"owl"]),
    "objects": np.array(["cat", "owl", "dog"], object),
    "integer objects": np.array([3, 1, 4], object),
    "one-hot": np.eye(4)[:3],
    "one-hot uint8": np.eye(3, dtype=np.uint8),
    "column": np.array([[3], [1], [4]]),
    "whole floats": np.array([3.0, 1.0]),
    "list": [3, 1, 4],
    "list of str": ["cat", "owl"],
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels(kind: str) -> None:
    """y comes back as it was given, row by row."""
    labels = LABELS[kind]
    at = np.arange(30) % len(labels)
    y = [labels[i] for i in at] if isinstance(labels, list) else labels[at]
    seq = sampler(np.arange(30), y, classes_per_batch=2, examples_per_class_per_batch=3, steps_per_epoch=5)
    for x, got in seq:
        wanted = np.asarray(y)[x]
        assert (got == (wanted[:, 0] if kind == "column" else wanted)).all()
        assert len({str(label) for label in got}) == 2


def test_many_classes() -> None:
    """More than 2**16."""
    y = np.arange(70_000).repeat(2)
    x, got = sampler(y, y, classes_per_batch=100)[3]
    assert (x == got).all()
    assert len(set(got.tolist())) == 100


def test_class_list_and_total() -> None:
    seq = sampler(class_list={4, 9}, total_examples_per_class=6, steps_per_epoch=50)
    drawn = np.concatenate([x for x, _ in seq])
    assert set(Y[drawn].tolist()) == {4, 9}
    assert sorted(Counter(Y[list(set(drawn.tolist()))].tolist()).items()) == [(4, 6), (9, 6)]
    assert seq.num_examples == 12
    x, y = seq.get_slice()
    assert x.tolist() == sorted(set(drawn.tolist()))
    assert (Y[x] == y).all()
    assert seq.get_slice(2, 3)[0].tolist() == x[2:5].tolist()
    assert sampler(class_list=[4, 9], total_examples_per_class=6, seed=2).get_slice()[0].tolist() != x.tolist()


def test_fewer_than_asked(caplog: Any) -> None:
    """Each class is named, once."""
    with caplog.at_level(logging.WARNING, "sampler"):
        seq = sampler(total_examples_per_class=9, examples_per_class_per_batch=6, steps_per_epoch=30)
    assert [record.getMessage() for record in caplog.records] == [
        "total_examples_per_class is 9, but some classes have fewer examples, so all are kept: 3 (7), 5 (5)",
        "examples_per_class_per_batch is 6, but some classes have fewer examples, so these repeat in a batch: 5 (5)",
    ]
    caplog.clear()
    with caplog.at_level(logging.WARNING, "sampler"):
        select_examples(X, Y, num_examples_per_class=9, seed=1)
    assert [record.getMessage() for record in caplog.records] == [
        "num_examples_per_class is 9, but some classes have fewer examples, so all are taken: 3 (7), 5 (5)"
    ]
    caplog.clear()
    list(pickle.loads(pickle.dumps(seq)))
    assert not caplog.records


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_image_files(tmp_path: Path, kind: str) -> None:
    """A list of paths with load_image."""
    paths = []
    for at in range(12):
        paths.append(tmp_path / f"{at}.{kind.lower()}")
        Image.fromarray(np.full((10, 6, 3), 20 * at, np.uint8)).save(paths[-1])
    seq = sampler(paths, np.arange(12) // 3, 2, 2, load_example_fn=load_image, steps_per_epoch=4)
    assert seq.example_shape == (10, 6, 3)
    for x, y in seq:
        assert x.shape == (4, 10, 6, 3)
        assert (np.round(x[:, 0, 0, 0] / 20).astype(int) // 3 == y).all()
    with seq.prefetch(nb_workers=1) as batches:
        assert len(list(batches)) == 4


@pytest.mark.needs("tensorflow")
def test_memmap_and_tensor(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    mapped = sampler(np.load(tmp_path / "x.npy", mmap_mode="r"))
    assert type(mapped[0][0]) is np.ndarray
    program = (
        "import numpy as np, tensorflow as tf; from sampler import MultiShotMemorySampler as M\n"
        "x = np.arange(40.0); y = np.arange(40) % 4\n"
        "a = M(tf.constant(x), tf.constant(y), seed=1)[0]; b = M(x, y, seed=1)[0]\n"
        "assert all(type(i) is np.ndarray and (i == j).all() for i, j in zip(a, b))\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100, cwd=Path(__file__).parents[2])


def test_building_copies_nothing() -> None:
    """x is used as it is, and what is built beside it is small."""
    x = np.zeros((20_000, 28, 28), np.uint8)
    y = np.arange(20_000) % 10
    tracemalloc.start()
    seq = sampler(x, y, 10, 8)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.shares_memory(seq._examples.x, x)
    assert peak < 0.1 * x.nbytes


def test_select_examples() -> None:
    x, y = select_examples(X, Y, class_list=[4, 1], num_examples_per_class=5, seed=1)
    assert sorted(Counter(y.tolist()).items()) == [(1, 5), (4, 5)]
    assert (Y[x] == y).all()
    assert len(set(x.tolist())) == 10
    assert y.tolist() != sorted(y.tolist())
    again = select_examples(X, Y, class_list=[4, 1], num_examples_per_class=5, seed=1)
    assert again[0].tolist() == x.tolist()
    assert sorted(select_examples(X, Y)[0].tolist()) == X.tolist()


WRONG: list[tuple[type[Exception], dict[str, Any], str]] = [
    (ValueError, {"class_list": [3, 8]}, "class_list must hold .* 8 is not one of them; y has 1, 3, 4, 5, 9"),
    (ValueError, {"class_list": []}, "class_list .* empty"),
    (TypeError, {"class_list": 3}, "class_list must be"),
    (TypeError, {"y": np.arange(63) * 1e300}, "y must be labels"),
    (ValueError, {"y": Y[:-1]}, "x and y must be of the same length, not 63 and 62"),
    (ValueError, {"classes_per_batch": 6}, "classes_per_batch must be 1 to 5, the number of classes, not 6"),
    (ValueError, {"classes_per_batch": 0}, "classes_per_batch must be"),
    (ValueError, {"examples_per_class_per_batch": 0}, "examples_per_class_per_batch must be"),
    (TypeError, {"examples_per_class_per_batch": 2.0}, "examples_per_class_per_batch must be"),
    (ValueError, {"total_examples_per_class": 0}, "total_examples_per_class must be None or"),
    (ValueError, {"steps_per_epoch": 0}, "steps_per_epoch must be"),
    (TypeError, {"y": np.arange(63) + 0.5}, "y must be labels"),
    (TypeError, {"y": [None] * 63}, "y must be labels"),
    (TypeError, {"y": np.full((63, 4), 2)}, "y must be labels"),
    (ValueError, {"x": [], "y": []}, "x must have at least one element"),
    (TypeError, {"load_example_fn": 3}, "load_example_fn must be"),
    (TypeError, {"augmenter": 3}, "augmenter must be"),
    (TypeError, {"num_augmentations_per_example": None}, "num_augmentations_per_example must be"),
]


@pytest.mark.parametrize(("error", "options", "text"), WRONG)
def test_what_is_wrong_is_named(error: type[Exception], options: dict[str, Any], text: str) -> None:
    with pytest.raises(error, match=text):
        sampler(**options)


@pytest.mark.parametrize("options", [{"begin": 63}, {"begin": -1}, {"size": 0}, {"size": -2}])
def test_wrong_slices(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"begin|size"):
        sampler().get_slice(**options)


# -- several labels


def several_labels(dtype: Any = np.int64) -> Any:
    """Of 40 examples: one to three of five labels each; the fifth is rare."""
    rng = np.random.default_rng(1)
    y = np.zeros((40, 5), dtype)
    for row in y:
        row[rng.choice(4, rng.integers(1, 4), replace=False)] = 1
    y[[3, 9, 21], 4] = 1
    return y


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool, np.float32])
def test_several_labels(dtype: Any) -> None:
    """The examples of each class have its label; each example of a class comes as often as the others."""
    y = several_labels(dtype)
    seq = sampler(np.arange(40), y, classes_per_batch=3, examples_per_class_per_batch=2, steps_per_epoch=50)
    assert seq.num_examples == 40
    assert seq.class_list == [0, 1, 2, 3, 4]
    draws = ClassDraws(seq._index, 3, 2, 50, seq.seed)
    drawn: list[Counter[int]] = [Counter() for _ in range(5)]
    for epoch in range(2):
        seq.epoch = epoch
        for batch_id in range(50):
            x, got = seq[batch_id]
            assert got.dtype == dtype
            assert (got == y[x]).all()
            draws.batch(epoch, batch_id)
            for at, of in enumerate(draws._epochs[epoch].draws.view(batch_id).tolist()):
                assert got[2 * at : 2 * at + 2, of].all()
                drawn[of].update(x[2 * at : 2 * at + 2].tolist())
        for of, counts in enumerate(drawn):
            assert set(counts) == set(y[:, of].nonzero()[0].tolist())
            assert max(counts.values()) - min(counts.values()) <= 1


def test_a_choice_of_examples_of_several_labels() -> None:
    y = several_labels()
    seq = sampler(np.arange(40), y, class_list=[0, 4], total_examples_per_class=3)
    x, got = seq.get_slice()
    assert x.tolist() == sorted(set(x.tolist()))
    assert len(x) == seq.num_examples <= 6
    assert (got[:, [0, 4]].sum(0) >= 3).all()
    x, got = select_examples(np.arange(40), y, num_examples_per_class=2, seed=1)
    assert len(set(x.tolist())) == len(x)
    assert (got.sum(0) >= 2).all()


def test_rows_that_are_no_labels() -> None:
    y = several_labels()
    y[[5, 7]] = 0
    with pytest.raises(ValueError, match=r"2 rows of y have no label, so these examples would never be drawn"):
        sampler(np.arange(40), y)
    for wrong in (several_labels() * 2, several_labels() - 0.5):
        with pytest.raises(TypeError, match="one-hot or multi-hot rows"):
            sampler(np.arange(40), wrong)
