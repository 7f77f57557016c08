"""SingleShotMemorySampler and what all samplers share: each batch a function of (seed, epoch, batch_id)."""

from __future__ import annotations

import itertools
import pickle
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sampler
from sampler import Augmenter, Sampler, SingleShotMemorySampler
from workers import current_rng

Batch = tuple[Any, Any]


def identity(x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> Batch:
    return x, y


def noisy(x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> Batch:
    """Draws from every generator an augmenter may use, and writes into what it was given."""
    x += current_rng().integers(1000) + random.randrange(1000) + np.random.randint(1000)
    return x.repeat(num_augmentations_per_example, axis=0), y.repeat(num_augmentations_per_example)


class Doubling(Augmenter):
    def augment(self, x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> Batch:
        return 2 * x, y


class Range:
    """Items that are in no memory: item ``i`` is the number i."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.num_read = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, position: int) -> int:
        if not 0 <= position < self.length:
            raise IndexError(position)
        self.num_read += 1
        return position


def single_shot(x: Any, class_per_batch: int = 4, augmenter: Any = identity, **kwargs: Any) -> Any:
    return SingleShotMemorySampler(x, augmenter, class_per_batch, **{"seed": 1, **kwargs})


def as_lists(batches: Any) -> list[Any]:
    return [(x.tolist(), y.tolist()) for x, y in batches]


IMAGES = np.arange(100 * 4 * 4 * 3, dtype=np.float32).reshape(100, 4, 4, 3)


# -- what a batch is


def test_y_is_the_position_in_x_and_of_int32() -> None:
    x, y = single_shot(IMAGES, 16)[3]
    assert x.dtype == IMAGES.dtype
    assert y.dtype == np.int32
    assert len(set(y.tolist())) == 16
    assert (x == IMAGES[y]).all()


@pytest.mark.parametrize(("length", "dtype"), [(2**31 - 1, "int32"), (2**31, "int64"), (2**62, "int64")])
def test_y_is_of_int64_only_where_it_must_be(length: int, dtype: str) -> None:
    x, y = single_shot(Range(length), 64, load_example_fn=lambda item: item)[0]
    assert y.dtype == dtype
    assert (x == y).all()


def test_what_the_augmenter_is_given_and_what_it_returns_is_the_batch() -> None:
    given = []

    def augment(*arguments: Any) -> list[Any]:
        given.append(arguments)
        return ["anything", {"of": "any kind"}]

    seq = single_shot(IMAGES, 4, augment, num_augmentations_per_example=np.int64(3), warmup=1)
    assert seq[2] == ("anything", {"of": "any kind"})
    [(x, y, num_augmentations_per_example, is_warmup)] = given
    assert (x == IMAGES[y]).all()
    assert num_augmentations_per_example == 3
    assert is_warmup is True


def test_two_augmentations_are_asked_for_unless_said_otherwise() -> None:
    x, y = single_shot(IMAGES, 4, noisy)[0]
    assert (len(x), len(y)) == (8, 8)


def test_an_augmenter_may_be_a_class_or_none() -> None:
    plain = single_shot(IMAGES, 4, None)[0]
    assert as_lists([plain]) == as_lists([single_shot(IMAGES, 4, identity)[0]])
    assert (single_shot(IMAGES, 4, Doubling())[0][0] == 2 * plain[0]).all()


def test_an_augmenter_may_write_into_the_batch_but_not_into_the_data() -> None:
    before = IMAGES.copy()
    list(single_shot(IMAGES, 50, noisy, steps_per_epoch=4))
    assert (before == IMAGES).all()


@pytest.mark.parametrize("returned", [None, "xy", (1,), (1, 2, 3), np.zeros((2, 3))])
def test_an_augmenter_that_returns_no_pair_is_told_so(returned: Any) -> None:
    with pytest.raises(TypeError, match=r"augmenter must return \(x, y\), not"):
        single_shot(IMAGES, 4, lambda *_: returned)[0]


# -- once each, and the same always


def test_none_comes_again_before_all_came_also_across_epochs() -> None:
    seq = single_shot(np.arange(10), 4, steps_per_epoch=3)
    drawn = np.concatenate([y for _ in range(5) for _, y in seq])
    assert len(drawn) == 60
    for cycle in drawn.reshape(6, 10):
        assert sorted(cycle.tolist()) == list(range(10))
    assert len({tuple(cycle) for cycle in drawn.reshape(6, 10).tolist()}) == 6


def test_a_batch_is_the_same_whenever_and_however_it_is_asked_for() -> None:
    in_order = as_lists(single_shot(IMAGES, 16, noisy, steps_per_epoch=10))
    seq = single_shot(IMAGES, 16, noisy, steps_per_epoch=10)
    for batch_id in (7, 0, 9, 3, 7):
        assert as_lists([seq[batch_id]]) == [in_order[batch_id]]
        assert as_lists([seq.generate_batch(batch_id)]) == [in_order[batch_id]]
        assert as_lists([seq.generate_batch(np.int64(batch_id - 10))]) == [in_order[batch_id]]
    assert as_lists(single_shot(IMAGES, 16, noisy, steps_per_epoch=10).prefetch(nb_workers=0)) == in_order


def test_epochs_and_seeds_differ() -> None:
    seq = single_shot(IMAGES, 16, noisy, steps_per_epoch=3)
    epochs = [as_lists(seq) for _ in range(3)]
    epochs.append(as_lists(single_shot(IMAGES, 16, noisy, steps_per_epoch=3, seed=2)))
    for part in (0, 1):  # x, that is the noise, and y, that is the order
        parts = [str(batch[part]) for epoch in epochs for batch in epoch]
        assert len(set(parts)) == len(parts)


def test_an_epoch_can_be_gone_to() -> None:
    seq = single_shot(IMAGES, 16, noisy, steps_per_epoch=3)
    epochs = [as_lists(seq) for _ in range(4)]
    resumed = single_shot(IMAGES, 16, noisy, steps_per_epoch=3)
    resumed.epoch = 3
    assert as_lists(resumed) == epochs[3]


def test_without_a_seed_one_is_drawn_and_kept() -> None:
    one, other = single_shot(IMAGES, seed=None), single_shot(IMAGES, seed=None)
    assert one.seed != other.seed
    assert as_lists([single_shot(IMAGES, seed=one.seed)[0]]) == as_lists([one[0]])


def test_the_user_s_generators_are_left_alone() -> None:
    random.seed(3)
    np.random.seed(3)
    expected = random.random(), np.random.random()
    random.seed(3)
    np.random.seed(3)
    seq = single_shot(IMAGES, 4, noisy)
    _, _, _ = seq[0], seq.generate_batch(1), seq.get_examples(2, 4, 1)
    assert (random.random(), np.random.random()) == expected


# -- warm-up


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [(-1, [False] * 4), (0, [False] * 4), (1, [True, False, False, False]), (3, [True] * 3 + [False])],
)
def test_warmup_is_the_first_epochs(warmup: int, expected: list[bool]) -> None:
    seq = single_shot(IMAGES, 4, lambda x, y, n, is_warmup: (is_warmup, y), steps_per_epoch=2, warmup=warmup)
    seen = []
    for is_warmup in expected:
        assert seq.is_warmup is is_warmup
        seen.append([is_warmup for is_warmup, _ in seq])
    assert seen == [[is_warmup] * 2 for is_warmup in expected]
    ahead = single_shot(IMAGES, 4, lambda x, y, n, warm: (warm, y), steps_per_epoch=2, warmup=warmup)
    with ahead.prefetch(nb_workers=0) as batches:
        assert [[is_warmup for is_warmup, _ in batches] for _ in expected] == seen


def test_calls_of_on_epoch_end_are_not_counted() -> None:
    seq = single_shot(IMAGES, warmup=1)
    seq.on_epoch_end()
    seq.on_epoch_end()
    assert seq.is_warmup
    assert seq.epoch == 0


# -- what x may be


def test_an_array_is_not_copied() -> None:
    assert np.shares_memory(single_shot(IMAGES)._examples.x, IMAGES)
    read_only = np.arange(10)
    read_only.flags.writeable = False
    x, _ = single_shot(read_only)[0]
    assert x.flags.writeable


@pytest.mark.parametrize("x", [np.asfortranarray(IMAGES), IMAGES[::-2], IMAGES.astype(">f4")])
def test_an_array_may_lie_in_memory_as_it_likes(x: Any) -> None:
    batch, y = single_shot(x, 20)[0]
    assert (batch == x[y]).all()


def test_a_mapped_file_stays_one_and_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(2**36)  # 64 GiB, none of it on the disk
    mapped = np.memmap(path, np.uint8, "r+", shape=(2**20, 2**16))
    seq = single_shot(mapped, 8, steps_per_epoch=2)
    _, y = seq[0]
    mapped[y] = np.arange(8, dtype=np.uint8)[:, np.newaxis] + 1
    x, _ = seq[0]
    assert x[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert isinstance(seq._examples.x, np.memmap)
    assert type(seq.get_examples(0, 8, 1)[0]) is np.ndarray
    assert seq.example_shape == (2**16,)


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_of_examples_is_made_an_array_once(kind: Any) -> None:
    seq = single_shot(kind(IMAGES))
    assert isinstance(seq._examples.x, np.ndarray)
    assert as_lists([seq[0]]) == as_lists([single_shot(IMAGES)[0]])


@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_paths_are_loaded_when_drawn(tmp_path: Path, kind: Any) -> None:
    paths = [tmp_path / f"{number}.npy" for number in range(20)]
    for number, path in enumerate(paths):
        np.save(path, IMAGES[number])
    seq = single_shot(kind([str(path) for path in paths]), 2, load_example_fn=np.load)
    assert seq.example_shape == (4, 4, 3)
    for path in paths[10:]:
        path.unlink()
    num_loaded = 0
    for batch_id in range(50):
        _, positions = single_shot(Range(20), 2, load_example_fn=int)[batch_id]
        if max(positions) < 10:
            x, y = seq[batch_id]
            assert (x == IMAGES[y]).all()
            num_loaded += 1
        else:
            with pytest.raises(FileNotFoundError):
                seq[batch_id]
    assert 0 < num_loaded < 50
    assert seq.num_examples == 20


def test_a_thousand_million_items_cost_only_those_that_are_drawn() -> None:
    x = Range(10**9)
    seq = single_shot(x, 64, load_example_fn=lambda item: np.full(3, item), steps_per_epoch=2**40)
    tracemalloc.start()
    try:
        batches = [seq[batch_id] for batch_id in (0, 10**9 // 64, 2**40 - 1)]
        peak_nbytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert x.num_read == 3 * 64
    assert peak_nbytes < 1_000_000
    for batch, y in batches:
        assert (batch == y[:, np.newaxis]).all()
        assert len(set(y.tolist())) == 64


def test_loaded_examples_of_different_shapes_are_named() -> None:
    seq = single_shot(Range(8), 8, None, load_example_fn=lambda item: np.zeros(3 if item == 5 else 2))
    with pytest.raises(ValueError, match=r"one shape, not \(\d,\) for x\[\d\] and \(\d,\) for x\[\d\].*augmenter"):
        seq[0]


TENSORS = """
import sys
from sampler import SingleShotMemorySampler
assert "tensorflow" not in sys.modules

import numpy as np
import tensorflow as tf

x = np.arange(60, dtype=np.float32).reshape(20, 3)
for tensor in (tf.constant(x), tf.Variable(x)):
    seq = SingleShotMemorySampler(tensor, None, 4, seed=1)
    assert type(seq._examples.x) is np.ndarray
    assert seq.example_shape == (3,) and seq.num_examples == 20
    batch, y = seq[0]
    assert type(batch) is np.ndarray and batch.dtype == np.float32 and (batch == x[y]).all()
seq = SingleShotMemorySampler(tf.constant([b"0", b"1", b"2"]), None, 2, load_example_fn=int, seed=1)
batch, y = seq[0]
assert (batch == y).all()
"""


@pytest.mark.needs("tensorflow")
def test_tensors_are_arrays_from_the_start_and_tensorflow_is_not_imported_for_it() -> None:
    done = subprocess.run([sys.executable, "-c", TENSORS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- the rest of its face


def test_get_examples_is_the_batch_before_augmentation() -> None:
    seq = single_shot(IMAGES, 16, Doubling())
    for example_per_class in (1, 2):  # there is but one of a class
        x, y = seq.get_examples(5, 16, example_per_class)
        assert (2 * x == seq[5][0]).all()
        assert (y == seq[5][1]).all()


def test_get_examples_of_other_numbers_of_classes_covers_x_too() -> None:
    seq = single_shot(np.arange(10), 4)
    drawn = np.concatenate([seq.get_examples(batch_id, 5, 1)[1] for batch_id in range(2)])
    assert sorted(drawn.tolist()) == list(range(10))
    with pytest.raises(ValueError, match="class_per_batch must be 1 to 10, the length of x, not 11"):
        seq.get_examples(0, 11, 1)


def test_lengths_and_shapes() -> None:
    seq = single_shot(IMAGES, steps_per_epoch=7)
    assert len(seq) == len(list(seq)) == 7
    assert len(single_shot(IMAGES)) == 1000
    assert seq.num_examples == 100
    assert seq.example_shape == (4, 4, 3)
    assert single_shot(range(10)).example_shape == ()


@pytest.mark.parametrize("batch_id", [7, -8, 10**20])
@pytest.mark.parametrize("way", ["__getitem__", "generate_batch"])
def test_a_batch_that_is_not_there_is_an_index_error(batch_id: int, way: str) -> None:
    with pytest.raises(IndexError, match=f"{batch_id} is out of range"):
        getattr(single_shot(IMAGES, steps_per_epoch=7), way)(batch_id)


def test_a_batch_that_is_not_there_is_an_index_error_inside_a_job_too() -> None:
    seq = single_shot(IMAGES, steps_per_epoch=7)
    outer = single_shot(IMAGES, 4, lambda *_: seq.generate_batch(7))
    with pytest.raises(IndexError, match="7 is out of range"):
        outer[0]


def test_it_pickles_as_small_as_its_data() -> None:
    seq = single_shot(IMAGES, 90, noisy, steps_per_epoch=5)
    before = as_lists(seq[i] for i in range(5))
    pickled = pickle.dumps(seq)
    assert len(pickled) < IMAGES.nbytes + 1500
    assert as_lists(pickle.loads(pickled)) == before
    virtual = single_shot(Range(10**9), 64, load_example_fn=float)
    virtual[10**9 // 64 % 1000]
    assert len(pickle.dumps(virtual)) < 1500


class Constant(Sampler):
    """A sampler of one's own."""

    num_examples = 2
    example_shape = (3,)

    def get_examples(self, batch_id: int, num_classes: int, example_per_class: int) -> Batch:
        y = np.arange(num_classes).repeat(example_per_class)
        return np.full((len(y), 3), batch_id), y


def test_a_sampler_of_one_s_own() -> None:
    seq = Constant(2, seed=1, steps_per_epoch=4)
    x, y = seq[3]
    assert x.tolist() == [[3, 3, 3]] * 4
    assert y.tolist() == [0, 0, 1, 1]
    doubled, _ = Constant(2, augmenter=Doubling(), seed=1)[3]
    assert (doubled == 2 * x).all()
    assert not seq.is_warmup


@pytest.mark.parametrize("base", [Sampler, Augmenter])
def test_bases_cannot_be_made(base: Any) -> None:
    with pytest.raises(TypeError, match="abstract"):
        base()


def test_public_names() -> None:
    assert {"Augmenter", "Sampler", "SingleShotMemorySampler"} <= set(sampler.__all__)


# -- bad input

BAD = {
    "augmenter": [
        (TypeError, "crop", "augmenter must be None or callable as augmenter.*'crop'"),
        (TypeError, 3, "augmenter must be .*3"),
        (TypeError, lambda x, y: (x, y), "takes|too many"),
        (TypeError, lambda x, y, n, w, more: (x, y), "more"),
        (TypeError, lambda x, y, n, w, *, more: (x, y), "more"),
        (TypeError, Doubling, "give an instance, not the class"),
    ],
    "class_per_batch": [
        (ValueError, 11, "class_per_batch must be 1 to 10, the length of x, not 11"),
        (ValueError, 0, "class_per_batch must be .*not 0"),
        (ValueError, -1, "class_per_batch must be .*not -1"),
        (TypeError, 2.0, "class_per_batch must be an integer.*2.0"),
        (TypeError, True, "class_per_batch must be an integer.*True"),
        (TypeError, None, "class_per_batch must be an integer.*None"),
    ],
    "steps_per_epoch": [
        (ValueError, 0, "steps_per_epoch must be .*not 0"),
        (TypeError, 1.5, "steps_per_epoch must be an integer.*1.5"),
        (TypeError, None, "steps_per_epoch must be an integer.*None"),
    ],
    "warmup": [
        (TypeError, 1.0, "warmup must be an integer.*1.0"),
        (TypeError, None, "warmup must be an integer.*None"),
        (TypeError, False, "warmup must be an integer.*False"),
    ],
    "num_augmentations_per_example": [
        (ValueError, 0, "num_augmentations_per_example must be .*not 0"),
        (TypeError, "2", "num_augmentations_per_example must be an integer.*'2'"),
    ],
    "load_example_fn": [(TypeError, "load", "load_example_fn must be None or callable, not 'load'")],
    "seed": [
        (TypeError, 1.0, "seed must be .*1.0"),
        (TypeError, "a", "seed must be .*'a'"),
        (ValueError, -1, "seed must be .*-1"),
    ],
    "x": [
        (ValueError, [], "x must have at least one element"),
        (ValueError, np.zeros((0, 3)), "x must have at least one element"),
        (ValueError, [[1, 2], [3]], "x must hold examples of one shape.*load_example_fn"),
        (ValueError, [np.zeros((2, 3)), [[1, 2], [3]]], "x must hold examples of one shape.*load_example_fn"),
        (TypeError, [Path("a"), Path("b")], "x must hold arrays or numbers, not .*Path.*load_example_fn"),
        (TypeError, 3, "x must have a length.*int"),
        (TypeError, None, "x must have a length.*None"),
        (TypeError, "a path", "x must have a length.*str"),
        (TypeError, {1: 2}, "x must have a length.*dict"),
        (TypeError, {1, 2}, "x must have a length.*set"),
        (TypeError, iter([1, 2]), "x must have a length.*iterator"),
        (TypeError, np.array(3.0), "x must have one element per example"),
    ],
}


@pytest.mark.parametrize(
    ("name", "error", "value", "message"), [(name, *row) for name, rows in BAD.items() for row in rows]
)
def test_bad_input_is_named_at_construction(name: str, error: Any, value: Any, message: str) -> None:
    arguments = {"x": np.zeros((10, 2)), "augmenter": identity, "class_per_batch": 4, name: value}
    with pytest.raises(error, match=message):
        SingleShotMemorySampler(**arguments)


@pytest.mark.parametrize("value", ["a path", b"a path", {1: 2}, {1, 2}, 3, np.array("a path")])
def test_items_to_load_must_have_positions(value: Any) -> None:
    with pytest.raises(TypeError, match="x must"):
        single_shot(value, 1, load_example_fn=np.load)


@pytest.mark.parametrize("augmenter", [lambda *a: a[:2], lambda x, y, n=1, w=False, z=0: (x, y), max, Doubling()])
def test_any_augmenter_that_takes_four_arguments_is_taken(augmenter: Any) -> None:
    single_shot(IMAGES, 4, augmenter)


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint32])
def test_numpy_integers_are_integers(kind: Any) -> None:
    arguments = {"class_per_batch": kind(4), "steps_per_epoch": kind(3), "warmup": kind(1), "seed": kind(5)}
    seq = SingleShotMemorySampler(IMAGES, identity, **arguments)
    plain = SingleShotMemorySampler(IMAGES, identity, 4, 3, 1, seed=5)
    assert as_lists(itertools.chain(seq, seq)) == as_lists(itertools.chain(plain, plain))


@pytest.mark.parametrize("name", ["get_examples", "generate_batch", "__getitem__"])
def test_draws_of_a_subclass(name: str) -> None:
    """Whichever method it overrides, its draws from numpy.random are those of the batch."""

    def drawing(self: Any, *arguments: Any) -> Any:
        x, y = getattr(SingleShotMemorySampler, name)(self, *arguments)
        return x + np.random.random(), y

    kind = type("Drawing", (SingleShotMemorySampler,), {name: drawing})
    sampler = kind(np.zeros(10), None, class_per_batch=2, steps_per_epoch=3, seed=1)
    found = [[sampler[index][0].tolist() for index in range(3)] for _ in range(2)]
    assert found[0] == found[1]
    assert len({str(each) for each in found[0]}) == 3


@pytest.mark.parametrize("how", ["get_examples", "augmenter", "load_example_fn"])
def test_a_batch_is_nobody_elses(how: str) -> None:
    """Also where the user's code keeps what it returns: by hand, in the loop's process, and in threads."""
    kept = np.zeros((2, 3))

    class Keeping(SingleShotMemorySampler):
        def get_examples(self, batch_id: int, *_: Any) -> Any:
            return kept, np.arange(2)

    kind = Keeping if how == "get_examples" else SingleShotMemorySampler
    augmenter = (lambda x, y, *_: (kept, y)) if how == "augmenter" else None
    load = (lambda item: kept[0]) if how == "load_example_fn" else None
    sampler = kind(kept, augmenter, class_per_batch=2, steps_per_epoch=3, load_example_fn=load, seed=1)
    with sampler.prefetch(0) as serial, sampler.prefetch(1, executor="thread") as threads:
        for x, _ in (sampler[0], next(iter(sampler)), next(iter(serial)), next(iter(threads))):
            x[:] = 1
    assert not kept.any()
