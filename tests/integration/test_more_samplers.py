"""Samplers of files, of super-classes and of any ``tf.data.Dataset``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sampler import HierarchicalSampler, MultiShotFileSampler, MultiShotMemorySampler, TFDataSampler, class_folders

Y = np.repeat(np.arange(12), 5)  # 12 classes of 5 examples
X = np.arange(60.0)
SUPER = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2])  # of each class


def of_two(**options: Any) -> HierarchicalSampler:
    return HierarchicalSampler(X, Y, SUPER[Y], 4, 2, 2, **{"steps_per_epoch": 30, "seed": 1, **options})


def test_batches_of_super_classes() -> None:
    """Two super-classes, two classes of each, two examples of each class; all are used evenly."""
    uses: Counter[Any] = Counter()
    for _ in range(2):
        for x, y in (sampler := of_two()):
            assert (Y[x.astype(int)] == y).all()
            assert len(set(x.tolist())) == 8
            assert sorted(Counter(SUPER[list(dict.fromkeys(y.tolist()))].tolist()).values()) == [2, 2]
            assert set(Counter(y.tolist()).values()) == {2}
            uses.update(set(y.tolist()))
            uses.update(f"super {each}" for each in set(SUPER[y].tolist()))
        assert sampler.num_examples == 60
    counts = [uses[f"super {each}"] for each in range(3)]
    assert max(counts) - min(counts) <= 2
    for each in range(3):
        of_each = [uses[of] for of in np.flatnonzero(each == SUPER).tolist()]
        assert max(of_each) - min(of_each) <= 2 * 2  # two epochs, each within one of two samplers


@pytest.mark.parametrize("nb_workers", [1, 2, "auto"])
def test_the_same_on_any_workers(nb_workers: Any) -> None:
    by_class = HierarchicalSampler(X, Y, dict(enumerate(SUPER.tolist())), 4, 2, 2, 30, seed=1)
    expected = [(x.tolist(), y.tolist()) for x, y in of_two()]
    assert [(x.tolist(), y.tolist()) for x, y in by_class] == expected
    with of_two().prefetch(nb_workers) as batches:
        assert [(x.tolist(), y.tolist()) for x, y in batches] == expected
        loop = iter(batches)
        for _ in range(7):
            next(loop)
        state, rest = batches.state_dict(), [x.tolist() for x, _ in loop]
    with of_two().prefetch(0) as batches:
        batches.load_state_dict(state)
        assert [x.tolist() for x, _ in batches] == rest
    assert rest != [x for x, _ in expected[7:]]


def test_super_classes_as_words_and_one_hot_rows() -> None:
    words = np.array(["cat", "dog", "owl"])[SUPER[Y]]
    sampler = HierarchicalSampler(X, np.eye(12)[Y], words, 3, 1, 1, 20, seed=1)
    for _, y in sampler:
        assert len(set(SUPER[y.argmax(1)].tolist())) == 1
    assert (sampler.classes_per_batch, sampler.super_classes_per_batch) == (3, 1)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"super_classes": SUPER}, "one label for each of the 60 examples"),
        ({"super_classes": X % 7}, "class 0 belongs to several super-classes"),
        ({"super_classes": {0: 1}}, "no super-class for the class 1"),
        ({"classes_per_batch": 5}, "a multiple of super_classes_per_batch=2, not 5"),
        ({"classes_per_batch": 8}, "super-class 1 has 3 classes, but a batch takes 4"),
        ({"super_classes_per_batch": 4}, "super_classes_per_batch must be 1 to 3"),
        ({"super_classes_per_batch": 0}, "super_classes_per_batch must be an integer >= 1"),
    ],
)
def test_wrong_super_classes(options: dict[str, Any], error: str) -> None:
    with pytest.raises((TypeError, ValueError)) as raised:
        HierarchicalSampler(X, Y, **{"super_classes": SUPER[Y], **options})
    assert error in str(raised.value)


def test_files(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.new("RGB", (4, 3), (number, 0, len(name))).save(tmp_path / name / f"{number}.png")
    paths, labels, _ = class_folders(tmp_path)
    sampler = MultiShotFileSampler(paths, labels, steps_per_epoch=3, seed=1)
    assert sampler[0][0].shape == (4, 3, 4, 3)
    of_paths = MultiShotMemorySampler(np.array(paths), labels, steps_per_epoch=3, seed=1)
    with sampler.prefetch(2) as batches:
        for (images, y), (drawn, labels_of) in zip(batches, of_paths, strict=True):
            assert images[:, 0, 0, 0].tolist() == [int(Path(path).stem) for path in drawn.tolist()]
            assert (y == labels_of).all()
    with pytest.raises(TypeError, match="load_example_fn must be a function of a path"):
        MultiShotFileSampler(paths, labels, 2)  # type: ignore[arg-type]


@pytest.mark.needs("tensorflow")
def test_a_tf_data_dataset() -> None:
    import tensorflow as tf

    def made(x: Any) -> TFDataSampler:
        return TFDataSampler(tf.data.Dataset.from_tensor_slices((x, Y)).shuffle(100, seed=1), 3, 2, 10, seed=1)

    sampler = made(X)
    with sampler.prefetch(2) as batches:
        for x, y in batches:
            assert (Y[x.astype(int)] == y).all()
            assert sorted(Counter(y.tolist()).values()) == [2, 2, 2]
    lengths = tf.data.Dataset.range(60).map(lambda i: (tf.ones([i % 4 + 1]) * tf.cast(i, tf.float32), i // 5))
    ragged = TFDataSampler(
        lengths, 3, 2, 10, augmenter=lambda x, y, number, is_warmup: (np.array([each[0] for each in x]), y)
    )
    assert ragged.num_examples == 60
    assert (Y[ragged[0][0].astype(int)] == ragged[0][1]).all()


@pytest.mark.needs("tensorflow")
def test_wrong_datasets() -> None:
    import tensorflow as tf

    good = tf.data.Dataset.from_tensor_slices((X, Y))
    for wrong, error in (
        ((X, Y), "must be a tf.data.Dataset, not a tuple"),
        (tf.data.Dataset.from_tensor_slices(X), r"must be pairs \(x, y\)"),
        (tf.data.Dataset.from_tensor_slices({"x": X, "y": Y}), r"must be pairs \(x, y\)"),
        (good.batch(4), r"write \.unbatch\(\)"),
        (good.repeat(), "has no end"),
        (good.take(0), "is empty"),
    ):
        with pytest.raises((TypeError, ValueError), match=error):
            TFDataSampler(wrong)
