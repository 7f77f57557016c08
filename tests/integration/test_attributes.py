"""Each argument of a public class can be read as an attribute of its name: the value in effect."""

from __future__ import annotations

import gc
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sampler
import workers
from sampler import (
    BarlowAugmenter,
    ContrastiveAugmenter,
    HierarchicalSampler,
    MultiShotFileSampler,
    MultiShotMemorySampler,
    Problem,
    RandAugmenter,
    SimCLRAugmenter,
    SingleShotMemorySampler,
)
from workers import Job, RemoteTraceback, Sequence, SequenceArray, SequenceMap, timed
from workers.loader.options import Options
from workers.sequence.batched import SequenceBatch
from workers.sequence.shard import SequenceShard
from workers.sequence.shuffle import SequenceShuffle

X = np.arange(40.0).reshape(20, 2)
Y = np.arange(20) // 4
PATHS = [f"{at}.png" for at in range(20)]
NUMBERS = SequenceArray({"x": X}, seed=7)
SAMPLER = {"class_per_batch": 3, "num_augmentations_per_example": 4, "steps_per_epoch": 5, "warmup": 6, "seed": 7}


def augment(x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> Any:
    return x, y


def load(path: str) -> Any:
    return np.zeros(2)


def preprocess(x: Any, y: Any) -> Any:
    return x[..., 0], y


class Constant(sampler.Sampler):
    num_examples = 1
    example_shape = ()

    def get_examples(self, batch_id: int, num_classes: int, example_per_class: int) -> Any:
        return np.zeros(1), np.zeros(1, int)


MULTI = {
    "x": PATHS,
    "y": Y,
    "classes_per_batch": 2,
    "examples_per_class_per_batch": 3,
    "class_list": [1, 2, 4],
    "total_examples_per_class": 4,
    "augmenter": augment,
    "load_example_fn": load,
    **{name: value for name, value in SAMPLER.items() if name != "class_per_batch"},
}
MAP = {
    "source_split": NUMBERS,
    "nb_workers": 0,
    "function_to_run": load,
    "queue_timeout": 0.5,
    "debug_job_report_timeout": 7.0,
    "collate_fn": lambda batch, source: batch,
    "max_queue_size": 6,
    "executor": "thread",
    "seed": 3,
    "in_order": False,
    "on_error": "skip",
    "job_timeout": 8.0,
    "max_failures": 5,
    "max_retries": 1,
    "max_worker_memory": 1 << 30,
    "as_items": False,
}
#: [(class, what it is given, what differs in effect)]
CASES: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
    (Job, {"epoch": 1, "index": 2, "attempt": 3, "worker": 4}, {}),
    (Problem, {"path": "p", "record": 1, "offset": 2, "what": "w"}, {}),
    (RemoteTraceback, {"text": "t"}, {}),
    (timed, {"part": "decode"}, {}),
    (Sequence, {"seed": 5}, {}),
    (SequenceArray, {"arrays": {"x": X}, "sampler": np.random.permutation, "seed": 5}, {}),
    (SequenceArray, {"arrays": {"x": X.tolist()}, "sampler": [3, -1], "seed": 5}, {"arrays": {"x": X}}),
    (SequenceBatch, {"source_split": NUMBERS, "batch_size": 3, "discard_batch_not_full": True}, {}),
    (SequenceShard, {"source_split": NUMBERS, "rank": 1, "world": 2, "remainder": "pad"}, {}),
    (SequenceShuffle, {"source_split": NUMBERS, "seed": 3}, {}),
    (SequenceMap, MAP, {"max_jobs_at_once": 6, "max_queue_size_pin": 6}),
    (ContrastiveAugmenter, {"process": load, "num_views": 3}, {}),
    (Constant, {**SAMPLER, "examples_per_class_per_batch": 2, "augmenter": augment}, {}),
    (SingleShotMemorySampler, {"x": X, "augmenter": augment, **SAMPLER}, {"load_example_fn": None}),
    (SingleShotMemorySampler, {"x": PATHS, "augmenter": None, "load_example_fn": load, **SAMPLER}, {}),
    (MultiShotMemorySampler, MULTI, {}),
    (MultiShotMemorySampler, {"x": X, "y": Y.tolist()}, {"y": Y, "class_list": [0, 1, 2, 3, 4]}),
    (MultiShotFileSampler, {**MULTI, "load_example_fn": load}, {}),
    (HierarchicalSampler, {**MULTI, "super_classes": Y, "classes_per_batch": 2, "super_classes_per_batch": 2}, {}),
]
CASES += [
    (cls, {"height": 4, "width": 5, "is_training": False, "jitter_strength": 0.3}, {})
    for cls in (BarlowAugmenter, SimCLRAugmenter)
] + [(RandAugmenter, {"num_layers": 3, "magnitude": 2.0}, {})]
#: Those that are made in tests of their own, or cannot be made.
ELSEWHERE = {
    "ClassFolders",
    "Report",
    "TFDatasetMultiShotMemorySampler",
    "TFRecordSequence",
    "TFDataSampler",
    "TooManyFailuresError",
    "Augmenter",
    "Metadata",
}


def same(value: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return value.keys() == expected.keys() and all(same(value[name], expected[name]) for name in expected)
    if isinstance(expected, (list, np.ndarray)):
        return len(value) == len(expected) and all(np.array_equal(a, b) for a, b in zip(value, expected, strict=True))
    return bool(value == expected)


def check(made: Any, given: dict[str, Any], in_effect: dict[str, Any]) -> None:
    """All arguments of the class of ``made``; those not given are what their default says."""
    cls = next(each for each in type(made).__mro__ if each is not Constant)
    parameters = inspect.signature(cls).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.kind is not each.VAR_KEYWORD}
    if cls is SequenceMap:
        defaults |= {"seed": None, **vars(Options())}
    for name, default in defaults.items():
        expected = {**given, **in_effect}.get(name, default)
        if name in ("shard", "cache"):  # methods of all sequences
            continue
        value = getattr(made, name)
        assert isinstance(value, int) if (name, expected) == ("seed", None) else same(value, expected), name


@pytest.mark.parametrize(("make", "given", "in_effect"), CASES)
def test_what_was_given(make: Callable[..., Any], given: dict[str, Any], in_effect: dict[str, Any]) -> None:
    check(make(**given), given, in_effect)


def test_every_public_class() -> None:
    public = {getattr(module, name) for module in (workers, sampler) for name in module.__all__}
    classes = {each for each in public if isinstance(each, type) and each.__init__ is not Exception.__init__}
    own = {each for each in classes if not issubclass(each, Exception) or "__init__" in each.__dict__}
    made = {make for make, _, _ in CASES} | {sampler.Sampler}
    assert {each.__name__ for each in own - made} <= ELSEWHERE


@pytest.mark.parametrize(
    ("given", "per_worker", "total"),
    [
        ({"max_jobs_at_once": 3}, 3, 6),
        ({"max_jobs_at_once": 3, "max_queue_size_pin": 8}, 4, 8),
        ({"max_jobs_at_once": 3, "max_queue_size": 1}, 1, 1),
        ({}, None, None),
    ],
)
def test_bounds_in_effect(given: dict[str, int], per_worker: int | None, total: int | None) -> None:
    with SequenceMap(NUMBERS, 2, **given) as batches, batches.batch(2) as made:  # type: ignore[arg-type]
        for each in (batches, made):
            assert (each.max_jobs_at_once, each.max_queue_size_pin, each.max_queue_size) == (per_worker, total, total)
    with SequenceMap(NUMBERS, 2, max_jobs_at_once=0) as batches:
        assert batches.max_jobs_at_once == 0


def test_no_copy() -> None:
    """x and y are what the sampler holds, before workers have needed them and then."""
    x, y = np.arange(2**18, dtype=np.int64), np.arange(2**18, dtype=np.int64) // 4
    for seq in (
        MultiShotMemorySampler(x, y, steps_per_epoch=2, seed=1),
        SingleShotMemorySampler(x, None, class_per_batch=4, steps_per_epoch=2, seed=1),
    ):
        assert seq.x is x
        with seq.prefetch(1) as batches:
            list(batches)
        held = seq.x
        assert held is seq.x
        assert not np.shares_memory(held, x)  # in shared memory
        held[:] = 7  # and the workers see it
        with seq.prefetch(1) as batches:
            assert all((batch[0] == 7).all() for batch in batches)
        held[:] = x
    assert isinstance(seq, SingleShotMemorySampler)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set and TFRecords. Of the module, so that TensorFlow is started before the police look."""
    sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
    from optical_digits import prepare
    from shards import tf, write

    made = tmp_path_factory.mktemp("of_tensorflow")
    prepare(str(made), "array_record")
    list(tf.data.Dataset.range(3).interleave(tf.data.Dataset.range, num_parallel_calls=2))
    gc.freeze()
    return write(made / "shards", [7, 9, 11, 6], 2, options="GZIP").parent


def test_tensorflow_data_set(folder: Path) -> None:
    for in_memory in (False, True):
        given = {
            "dataset_name": "optical_digits",
            "splits": ["test"],
            "preprocess_fn": preprocess,
            "data_dir": str(folder),
            "download": False,
            "in_memory": in_memory,
            **{name: value for name, value in MULTI.items() if name not in ("x", "y", "load_example_fn")},
        }
        seq = sampler.TFDatasetMultiShotMemorySampler(**given)
        check(seq, given, {})
        assert len(seq.x) == len(seq.y) == 397


def test_tfrecords(folder: Path) -> None:
    from shards import parse_all

    given = {
        "shard_path": folder / "shards",
        "batch_deserialization_fn": parse_all,
        "example_per_class": 2,
        "batch_size": 4,
        "compression": "GZIP",
        "async_cycle": True,
        "seed": 1,
        "shuffle_blocks": False,
        "on_error": "skip",
        "shard": (0, 2),
    }
    with sampler.TFRecordSequence(**given) as sequence:
        check(sequence, given, {"shards_per_cycle": 2, "parallelism": -1, "prefetch_size": 10})
