"""Batch (seed, epoch, index) is the same bytes on any number of workers, in any executor."""

from __future__ import annotations

import functools
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from any_workers import WORKERS, epochs_on
from faulty import Faulty, same, wait_for

import workers
from sampler import Augmenter, ContrastiveAugmenter, SingleShotMemorySampler
from workers import Sequence, SequenceArray, SequenceMap, current_job, current_rng, prefetch

ROOT = Path(__file__).resolve().parents[2]
POOLS = [(0, "process"), (1, "process"), (3, "process"), (2, "thread")]


def augment(x: Any, y: Any, num: int, is_warmup: bool) -> Any:
    if is_warmup:
        return x, y
    return np.concatenate([x + current_rng().random(x.shape[1:], np.float32) for _ in range(num)]), np.tile(y, num)


def make_sampler() -> SingleShotMemorySampler:
    x = np.random.default_rng(0).random((500, 12, 12), np.float32)
    return SingleShotMemorySampler(x, augment, class_per_batch=64, steps_per_epoch=9, warmup=1, seed=5)


@pytest.mark.parametrize(("nb_workers", "executor"), POOLS)
@pytest.mark.parametrize("in_order", [True, False])
def test_a_sampler(nb_workers: int, executor: str, in_order: bool) -> None:
    """Three epochs, of which the first is the warm-up; the second is left in the middle."""
    sequence = make_sampler()
    expected = [[(x.tobytes(), y.tobytes()) for x, y in sequence] for _ in range(3)]
    assert expected[0] != expected[1] != expected[2]
    with make_sampler().prefetch(nb_workers, executor=executor, in_order=in_order) as batches:
        for epoch, wanted in enumerate(expected):
            got = []
            for x, y in batches:
                assert x.flags.writeable
                got.append((x.tobytes(), y.tobytes()))
                if epoch == 1 and len(got) == 4:
                    break
            if epoch == 1:
                assert set(got) <= set(wanted)
            else:
                assert (got == wanted) if in_order else (sorted(got) == sorted(wanted))


@pytest.mark.parametrize("nb_workers", [0, 1, 3])
def test_global_generators(nb_workers: int) -> None:
    """Draws of numpy.random in the jobs; twice, with other uses of the generators before."""
    random.seed(nb_workers)
    np.random.seed(nb_workers)
    expected = list(Faulty(""))
    with Faulty("").prefetch(nb_workers=nb_workers) as batches:
        assert all(map(same, batches, expected))


class Layouts(Sequence[Any]):
    """Sums over arrays that are not dense."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        cube = np.random.default_rng(0).random((60, 70, 80))
        masked = np.ma.MaskedArray(cube, cube > 0.5, fill_value=2.5, hard_mask=True)[:, ::-1]
        spread = np.broadcast_to(cube[0], cube.shape)
        self.arrays = [cube.transpose(2, 0, 1), cube[::-1], cube[:, :50, ::2], cube[0, :5].T, spread, masked]

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, index: int) -> Any:
        array = self.arrays[index]
        filled = np.ma.filled(array) if index == 5 else array
        return [array.sum(), array.std(), filled.sum(), *filled.sum(axis=1).ravel()]


def test_sums_over_arrays_that_are_not_dense() -> None:
    with Layouts().prefetch(0) as expected, Layouts().prefetch(2) as batches:
        for wanted, got in zip(expected, batches, strict=True):
            assert np.array(got).tobytes() == np.array(wanted).tobytes()


def load(index: int) -> Any:
    return {"index": index, "image": current_rng().random(30_000)}


def cut(sample: Any) -> Any:
    return [sample["image"][:3] + current_rng().random(), sample["index"]] if sample["index"] % 3 else []


def test_a_chain_of_maps() -> None:
    """.map(load, nb_workers=2).map(augment, nb_workers=2): one pool of four, lists item by item."""
    expected = list(SequenceArray({"i": np.arange(20)}, seed=3).map(lambda s: int(s["i"])).map(load).map(cut))
    chain = SequenceArray({"i": np.arange(20)}, seed=3).map(lambda s: int(s["i"]))
    with chain.map(load, nb_workers=2).map(cut, nb_workers=2) as batches:
        for _ in range(2):
            got = list(batches)
            assert len(got) == len(expected)
            assert [one for one in got if isinstance(one, int)] == [one for one in expected if isinstance(one, int)]


class Items:
    """Has only __iter__."""

    def __iter__(self) -> Iterator[Any]:
        for number in range(40):
            yield {"number": number, "data": np.full(100_000 if number % 2 else 3, number)}


def add_one(item: Any) -> Any:
    item["data"] += 1  # items are the job's own
    return item


@pytest.mark.parametrize(("nb_workers", "executor"), POOLS)
def test_a_source_that_can_only_be_iterated(nb_workers: int, executor: str) -> None:
    """Its items are shipped to the workers, small and large ones, epoch after epoch."""
    with SequenceMap(Items(), nb_workers, add_one, executor=executor) as batches:
        for _ in range(2):
            got = list(batches)
            assert [item["number"] for item in got] == list(range(40))
            assert all((item["data"] == item["number"] + 1).all() for item in got)
        next(iter(batches))


def test_a_source_that_fails_in_the_middle() -> None:
    """What it gave before arrives, then its error."""

    class Failing:
        def __iter__(self) -> Iterator[int]:
            yield from range(5)
            raise LookupError("source")

    got: list[str] = []
    with SequenceMap(Failing(), 2, str) as batches, pytest.raises(LookupError, match="source"):
        got.extend(batches)
    assert got == ["0", "1", "2", "3", "4"]


class Curriculum(Sequence):
    def __init__(self, num_large: int) -> None:
        super().__init__(seed=9)
        self.order = np.arange(30)
        self.large = np.arange(num_large)
        self.level = 0

    def __len__(self) -> int:
        return 30 + self.level

    def __getitem__(self, index: int) -> Any:
        return int(self.order[index % 30]), int(self.large[index]), self.level, self.epoch

    def on_epoch_end(self) -> None:
        np.random.shuffle(self.order)
        np.random.shuffle(self.large)
        self.level += 1


@pytest.mark.parametrize("num_large", [100, 1_000_000])
@pytest.mark.parametrize(("nb_workers", "executor"), POOLS)
def test_what_changes_between_epochs_is_seen(num_large: int, nb_workers: int, executor: str) -> None:
    """By every job of the next one: small and large arrays, other attributes, the length."""
    sequence = Curriculum(num_large)
    expected = [list(sequence) for _ in range(4)]
    assert [len(epoch) for epoch in expected] == [30, 31, 32, 33]
    with Curriculum(num_large).prefetch(nb_workers, executor=executor) as batches:
        assert [list(batches) for _ in range(4)] == expected


def test_an_attribute_that_the_loop_changes() -> None:
    class Scaled(Sequence):
        scale = 1

        def __len__(self) -> int:
            return 10

        def __getitem__(self, index: int) -> int:
            return index * self.scale

    sequence = Scaled(seed=0)
    with sequence.prefetch(nb_workers=2) as batches:
        for scale in (1, 2, 5):
            sequence.scale = scale
            assert list(batches) == [index * scale for index in range(10)]


@pytest.mark.needs("keras")
def test_other_peoples_sequences() -> None:
    """A list, a torch-like Dataset, a Keras PyDataset: __len__ and __getitem__ are enough."""
    import keras

    class Dataset(keras.utils.PyDataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return 7

        def __getitem__(self, index: int) -> Any:
            job = current_job()
            return np.full(3, index), None if job is None else job.epoch

    with prefetch(Dataset(), 2) as batches:
        for epoch in range(2):
            assert [(x.tolist(), e) for x, e in batches] == [([index] * 3, epoch) for index in range(7)]
    with prefetch(["a", None, b"c", 4.5], 2) as batches:
        assert list(batches) == ["a", None, b"c", 4.5]


@pytest.mark.needs("tensorflow")
def test_tensors_arrive_as_numpy() -> None:
    """And TensorFlow's eager draws are the same on any number of workers, also in the job that loads it."""

    class Tensors(Sequence):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            import tensorflow as tf

            return tf.fill([2], index), {"noise": tf.random.uniform([3])}

    expected = list(Tensors(seed=1))
    with Tensors(seed=1).prefetch(nb_workers=2) as batches:
        for got, wanted in zip(batches, expected, strict=True):
            assert type(got[0]) is type(got[1]["noise"]) is np.ndarray
            assert got[0].tolist() == wanted[0].tolist()
            assert got[1]["noise"].tolist() == wanted[1]["noise"].tolist()


def test_front_end_methods() -> None:
    with workers.SequenceMap(list(range(50)), 2, lambda i: i, max_jobs_at_once=2) as batches:
        assert batches.max_queue_size == 4
        iter(batches)
        got = []
        while len(got) < 50:
            try:
                got.append(batches.next_item(blocking=False))
            except StopIteration:
                assert len(got) < 50
        assert got == list(range(50))
        assert batches.metadata.nb_batches == 50
        assert batches.metadata.time_processing > 0
        assert batches.has_background_jobs() in (True, False)


@pytest.mark.parametrize("user_seed", [None, 5])
@pytest.mark.needs("tensorflow")
def test_tensorflows_seed_is_the_users_own(user_seed: int | None) -> None:
    """A batch computed in the consumer's process leaves it as it was, also where the user has set none."""
    code = f"""
import tensorflow as tf
from workers import Sequence

class Noise(Sequence):
    def __len__(self):
        return 3
    def __getitem__(self, index):
        return tf.random.uniform(())

if {user_seed} is not None:
    tf.random.set_seed({user_seed})
    expected = [float(tf.random.uniform(())) for _ in range(2)]
    tf.random.set_seed({user_seed})
noise = Noise(seed=1)
assert noise[1] == noise[1] != noise[2]
if {user_seed} is not None:
    assert expected == [float(tf.random.uniform(())), noise[0] * 0 + float(tf.random.uniform(()))]
else:
    from tensorflow.python.eager import context
    assert context.global_seed() is None
print("as it was")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout == "as it was\n", done.stderr


class Flips(Augmenter):
    """A pipeline of albumentations, made once, with all ways in which it draws."""

    def __init__(self) -> None:
        import albumentations as A

        self.flip = A.HorizontalFlip(p=0.5)
        self.pipeline = A.Compose(
            [
                A.OneOf([A.GaussianBlur(), A.GaussNoise()], p=0.8),
                A.RandomCrop(8, 8),
                A.SomeOf([A.VerticalFlip(), A.RandomBrightnessContrast(), A.Affine(rotate=(-20, 20))], n=2),
            ]
        )

    def augment(self, x: Any, y: Any, num: int, is_warmup: bool) -> Any:
        return np.stack([self.pipeline(image=self.flip(image=image)["image"])["image"] for image in x]), y


@pytest.mark.parametrize(("nb_workers", "executor"), POOLS)
@pytest.mark.needs("albumentations")
def test_albumentations(nb_workers: int, executor: str) -> None:
    """Its objects hold generators of their own: they draw by (seed, epoch, index), and no two batches alike."""
    x = np.random.default_rng(0).integers(0, 255, (40, 12, 12, 3), np.uint8)

    def make() -> Any:
        return SingleShotMemorySampler(x, Flips(), class_per_batch=8, steps_per_epoch=6, seed=1)

    sampler = make()
    expected = [batch[0].tobytes() for _ in range(2) for batch in sampler]
    with make().prefetch(nb_workers, executor=executor) as batches:
        got = [batch[0].tobytes() for _ in range(2) for batch in batches]
    assert got == expected
    assert len(set(got)) == 12


@pytest.mark.needs("albumentations")
def test_views_of_albumentations() -> None:
    """Two views of each example, which differ."""
    pipeline = Flips().pipeline
    sampler = SingleShotMemorySampler(
        np.random.default_rng(0).integers(0, 255, (40, 12, 12, 3), np.uint8),
        ContrastiveAugmenter(lambda image: pipeline(image=image)["image"]),
        class_per_batch=8,
        steps_per_epoch=3,
        seed=1,
    )
    expected = [[view.tobytes() for view in views] for views, _ in sampler]
    with sampler.prefetch(nb_workers=2) as batches:
        batches.epoch = 0
        got = [[view.tobytes() for view in views] for views, _ in batches]
    assert got == expected
    assert all(one != other for one, other in got)


class Streamed:
    """Has only ``__iter__``; uses its memory again for each item."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes

    def __iter__(self) -> Any:
        buffer = np.zeros(self.nbytes // 8)
        for number in range(60):
            buffer[:] = number
            yield buffer


@pytest.mark.parametrize("nbytes", [800, 80_000, 4_000_000])
@pytest.mark.parametrize("nb_workers", [0, 1, 3])
def test_items_of_a_stream(nbytes: int, nb_workers: int) -> None:
    """Whatever the source does with its memory, and the function with what it gets; also where a worker is killed."""

    def function(item: Any) -> Any:
        number = int(item[0])
        assert (item == number).all()
        item[:] = -1
        job = workers.current_job()
        assert job is not None
        if number == 20 and job.attempt == 0 and job.worker is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return number, item

    with workers.SequenceMap(Streamed(nbytes), nb_workers, function) as batches:
        for _ in range(3):
            seen = []
            for number, item in batches:
                assert (item == -1).all()
                seen.append(number)
            assert seen == list(range(60))


def test_items_that_nobody_wants_any_more() -> None:
    """A loop that is left in the middle: neither side keeps descriptors, or memory, of what was on its way."""

    with workers.SequenceMap(Streamed(200_000), 2, lambda item: item.sum()) as batches:
        ring = batches._live.pool.engine.executor._item_slots  # type: ignore[union-attr]
        for round_ in range(40):
            for total, _ in zip(batches, range(3), strict=False):
                assert total % 25_000 == 0
            if round_ == 10:
                both = [worker for server in psutil.Process().children() for worker in server.children()]
                before = [worker.num_fds() for worker in both]
                own = psutil.Process().num_fds() - len(ring.slots)
        # Those of a message that is on its way are gone in a moment, and may have been there at the first look.
        wait_for(lambda: all(worker.num_fds() <= num for worker, num in zip(both, before, strict=True)))
        assert psutil.Process().num_fds() - len(ring.slots) == own
        assert len(ring.slots) <= 2 * 64 + 2  # of the pass that was left, and of the new one


def _sampled(sample: Any, number: int) -> Any:
    return sample(range(number), number)


@pytest.mark.parametrize("function", [np.random.permutation, functools.partial(_sampled, random.sample)])
def test_a_sampler_function_that_is_a_method_of_a_global_generator(function: Any) -> None:
    """Its order is that of (seed, epoch), in workers too: not that of a copy of the generator."""

    def epochs(nb_workers: Any, executor: str) -> Any:
        sequence = SequenceArray({"x": np.arange(20)}, function, seed=1).batch(4)
        return [[batch["x"].tolist() for batch in epoch] for epoch in epochs_on(sequence, nb_workers, executor)]

    expected = epochs(0, "process")
    assert expected[0] != expected[1]
    for nb_workers, executor in WORKERS:
        assert epochs(nb_workers, executor) == expected, (nb_workers, executor)
