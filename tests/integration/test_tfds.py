"""Data sets of TensorFlow Datasets: real ones on disk, made from the digits of scikit-learn and loaded by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from sampler import TFDatasetMultiShotMemorySampler
from workers import current_rng

pytestmark = pytest.mark.needs("tensorflow_datasets")

ROOT = Path(__file__).resolve().parents[2]
NAME = "optical_digits"
FORMATS = ["tfrecord", "array_record"]
DIGITS = load_digits()


@pytest.fixture(scope="module")
def data_dirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """{format: where the digits are prepared in it}."""
    sys.path.append(str(ROOT / "scripts"))
    from optical_digits import prepare

    found = {}
    for file_format in FORMATS:
        found[file_format] = str(tmp_path_factory.mktemp(file_format))
        prepare(found[file_format], file_format)
    return found


def sampler(data_dir: str, *args: Any, **options: Any) -> TFDatasetMultiShotMemorySampler:
    return TFDatasetMultiShotMemorySampler(
        NAME, *args, **{"classes_per_batch": 4, "data_dir": data_dir, "seed": 1, "steps_per_epoch": 5, **options}
    )


WAYS = [("tfrecord", True), ("array_record", True), ("array_record", False)]


@pytest.mark.parametrize(("file_format", "in_memory"), WAYS)
def test_what_is_read(data_dirs: dict[str, str], file_format: str, in_memory: bool) -> None:
    """Every digit with its label, and the same batches in workers."""
    seq = sampler(data_dirs[file_format], in_memory=in_memory)
    x, y = seq.get_slice()
    assert x.shape == (1797, 8, 8, 1)
    assert x.dtype == np.uint8
    digits = zip((DIGITS.images * (255 / 16)).astype(np.uint8), DIGITS.target, strict=True)
    wanted = {(image.tobytes(), label) for image, label in digits}
    assert {(image.tobytes(), label) for image, label in zip(x, y, strict=True)} == wanted
    expected = [(x.tobytes(), y.tobytes()) for x, y in seq]
    seq.epoch = 0
    with seq.prefetch(nb_workers=2) as batches:
        assert [(x.tobytes(), y.tobytes()) for x, y in batches] == expected


@pytest.mark.parametrize(
    ("splits", "count"),
    [
        ("train", 1400),
        (["test"], 397),
        ("train[:10%]", 140),
        (("train[:100]", "test[-50:]"), 150),
        ("train+test", 1797),
    ],
)
@pytest.mark.parametrize(("file_format", "in_memory"), WAYS)
def test_splits(data_dirs: dict[str, str], file_format: str, in_memory: bool, splits: Any, count: int) -> None:
    assert sampler(data_dirs[file_format], splits=splits, in_memory=in_memory).num_examples == count


def larger(x: Any, y: Any) -> Any:
    assert x.shape == (8, 8, 1)
    assert y.shape == ()
    return np.kron(x[..., 0], np.ones((2, 2))).astype(np.float32) / 255, y % 5


def jitter(x: Any, y: Any, num: int, is_warmup: bool) -> Any:
    return x + current_rng().random(x.shape, np.float32), y


@pytest.mark.parametrize(("file_format", "in_memory"), WAYS)
def test_all_arguments(data_dirs: dict[str, str], file_format: str, in_memory: bool) -> None:
    seq = sampler(
        data_dirs[file_format],
        x_key="image",
        y_key="label",
        splits="train",
        examples_per_class_per_batch=3,
        class_list=[1, 2, 3, 4],
        total_examples_per_class=20,
        preprocess_fn=larger,
        augmenter=jitter,
        warmup=1,
        in_memory=in_memory,
    )
    assert seq.num_examples == 80
    assert seq.example_shape == (16, 16)
    with seq.prefetch(nb_workers=1) as batches:
        for x, y in batches:
            assert x.shape == (12, 16, 16)
            assert x.dtype == np.float32
            assert sorted(y.tolist()) == sorted([1, 2, 3, 4] * 3)


def test_another_key(data_dirs: dict[str, str]) -> None:
    x, _ = sampler(data_dirs["tfrecord"], x_key="number", splits="test").get_slice()
    assert sorted(x.tolist()) == list(range(1400, 1797))


def ragged(x: Any, y: Any) -> Any:
    return x[: 1 + y % 3], y


NAMES = ["cat", "catfish", "dog", "do", "\u00fcber", "a", "b", "c", "d", "a very long one"]


def wider(x: Any, y: Any) -> Any:
    """The first image is a zero, an integer; others have fractions, and larger dtypes."""
    return (np.int16(y) if y < 5 else np.float64(y) + 0.5), int(y) * 2**40


@pytest.mark.parametrize("as_name", [str, np.str_, np.array, str.encode], ids=["str", "np.str_", "array", "bytes"])
@pytest.mark.parametrize("file_format", FORMATS)
def test_labels_of_any_length(data_dirs: dict[str, str], file_format: str, as_name: Any) -> None:
    """None is cut to the length of the first one, so no two classes become one."""

    def as_named(x: Any, y: Any) -> Any:
        return y, as_name(NAMES[int(y)])

    seq = sampler(data_dirs[file_format], splits="train[:300]", preprocess_fn=as_named)
    expected = np.array([np.array(as_name(name)).item() for name in NAMES])
    assert seq.class_list == sorted(expected.tolist())
    assert seq.y.dtype == expected.dtype
    assert seq.y.tolist() == expected[seq.x].tolist()


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_dtype_that_holds_all(data_dirs: dict[str, str], file_format: str) -> None:
    """Not that of the first example."""
    seq = sampler(data_dirs[file_format], splits="train[:300]", preprocess_fn=wider)
    assert seq.x.dtype == np.float64
    of = seq.y >> 40
    assert seq.x.tolist() == np.where(of < 5, of, of + 0.5).tolist()
    assert set(of.tolist()) == set(range(10))


@pytest.mark.parametrize("file_format", FORMATS)
def test_texts_of_any_length(data_dirs: dict[str, str], file_format: str) -> None:
    """As examples: bytes that end in zeros too, and what is as long as none before."""

    def as_bytes(x: Any, y: Any) -> Any:
        return bytes(int(y)), y

    seq = sampler(data_dirs[file_format], splits="train[:300]", preprocess_fn=as_bytes)
    assert seq.x.tolist() == [bytes(int(y)) for y in seq.y]


def unsigned(x: Any, y: Any) -> Any:
    return x, (np.uint64(2**63) if y == 3 else np.int64(-1))


def two_kinds(x: Any, y: Any) -> Any:
    return x, (str(y) if y == 3 else y)


def none_of_some(x: Any, y: Any) -> Any:
    return (None if y == 3 else x), y


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    (
        {"x_key": "picture"},
        ValueError,
        "x_key must be a feature of optical_digits, not 'picture'; it has image, label",
    ),
    (
        {"y_key": "class"},
        ValueError,
        "y_key must be a feature of optical_digits, not 'class'; it has image, label",
    ),
    ({"splits": "validation"}, ValueError, "validation.*train"),
    ({"splits": []}, TypeError, "splits must be"),
    ({"splits": [3]}, TypeError, "splits must be"),
    ({"in_memory": False}, ValueError, "random-access format, but optical_digits is stored as tfrecord"),
    ({"preprocess_fn": 3}, TypeError, "preprocess_fn must be"),
    ({"preprocess_fn": lambda x, y: x}, TypeError, r"preprocess_fn must return \(x, y\)"),
    ({"preprocess_fn": ragged}, ValueError, "examples of feature 'image' must be of one shape.*preprocess_fn"),
    ({"preprocess_fn": unsigned}, TypeError, "feature 'label' must be of one kind, not int64 .* and uint64"),
    ({"preprocess_fn": two_kinds}, TypeError, "feature 'label' must be of one kind, not int64 .* and object"),
    ({"preprocess_fn": none_of_some}, ValueError, "feature 'image' must be of one shape"),
    ({"classes_per_batch": 11}, ValueError, "classes_per_batch must be 1 to 10"),
]


@pytest.mark.parametrize(("options", "error", "text"), WRONG)
def test_what_is_wrong_is_named(
    data_dirs: dict[str, str], options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        sampler(data_dirs["tfrecord"], **options)


def test_train_multishot(tmp_path: Path) -> None:
    """The script: from TFDS through the sampler and fit to the accuracy."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "train_multishot_digits.py"), "--epochs", "3", "--steps", "20"],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    raw, embedded = (float(each) for each in done.stdout.split("seen in training")[1].split("%")[:2])
    assert embedded > raw
    assert not list(tmp_path.iterdir())


def test_a_data_set_of_the_catalogue() -> None:
    """Its downloads are known: what is read of them lies in the package, and needs what setup.cfg asks for."""
    import tensorflow_datasets as tfds

    assert len(tfds.builder("mnist").url_infos) == 4
