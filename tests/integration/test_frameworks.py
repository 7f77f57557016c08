"""Of each framework, and each way to draw in it: are the draws alive, and are they the same on any number of workers?

Alive: they differ from batch to batch, from epoch to epoch and from worker to worker. The kinds are those of
``tests/drawing*.py``, each in real TensorFlow, Keras, torch and JAX.
"""

from __future__ import annotations

import copy
import functools
import importlib
import operator
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from sampler import Augmenter, SingleShotMemorySampler
from workers import NotPicklableError, Sequence, SequenceArray, current_seed, prefetch
from workers.job import seeding
from workers.job.generators import Generators

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["TensorFlow", "Keras", "Torch", "Jax"]
MODULES = {"Numpy": "drawing", **{name: f"drawing_{name.lower()}" for name in NAMES}}


@pytest.mark.parametrize(
    "framework", ["Numpy", *(pytest.param(name, marks=pytest.mark.needs(name.lower())) for name in NAMES)]
)
def test_draws(framework: str) -> None:
    make = getattr(importlib.import_module(MODULES[framework]), f"Of{framework}")
    by_hand = make()
    by_hand[3]  # traces its functions, and uses its generators, before it is sent
    epochs = {}
    for nb_workers in (0, 1, 2) if framework in ("TensorFlow", "Keras") else (0, 2):
        with (by_hand if nb_workers == 2 else make()).prefetch(nb_workers) as batches:
            epochs[nb_workers] = [batch for _ in range(2) for batch in batches]
    serial, *others = epochs.values()
    only_alive = {*getattr(make, "only_alive", ()), *getattr(make, "no_draws", ())}
    for kind in serial[0]:
        for nb_workers, batches in epochs.items():
            if kind not in getattr(make, "no_draws", ()):
                assert len({batch[kind] for batch in batches}) == len(batches) == 12, (kind, nb_workers)
        if kind not in only_alive:
            for other in others:
                assert [batch[kind] for batch in other] == [batch[kind] for batch in serial], kind
    distinct = {tuple(batch[kind] for batch in serial) for kind in serial[0]}
    assert len(distinct) == len(serial[0]) - len(getattr(make, "twins", ()))  # no kind draws what another one draws
    for kind, twin in getattr(make, "twins", ()):
        assert [batch[kind] for batch in serial] == [batch[twin] for batch in serial]


@pytest.mark.parametrize("executor", ["process", "thread"])
@pytest.mark.needs("tensorflow")
def test_a_job_that_is_run_again_draws_the_same(executor: str) -> None:
    """TensorFlow's kernels count what they have drawn; so do the generators that a sequence holds."""
    from drawing_tensorflow import OfTensorFlow

    class Fails(OfTensorFlow):
        def __init__(self) -> None:
            super().__init__()
            self.has_failed: list[int] = []

        def kinds(self) -> dict[str, Any]:
            kinds = super().kinds()
            of_job = "uniform", "with a seed", "shuffle", "stateless", "dataset", "gamma", "image"
            held = ("generator", "generators in a function", "traced by XLA") if executor == "process" else ()
            return {kind: kinds[kind] for kind in (*of_job, *held)}

        def __getitem__(self, index: int) -> Any:
            drawn = super().__getitem__(index)
            if index not in self.has_failed:
                self.has_failed.append(index)
                raise OSError("for the first time")
            return drawn

    expected = []
    sequence = Fails()
    sequence.has_failed.extend(range(6))
    expected = [*sequence, *sequence]
    with Fails().prefetch(1, executor=executor, on_error=lambda error: "retry") as batches:
        assert [*batches, *batches] == expected


@pytest.mark.needs("tensorflow")
def test_by_hand() -> None:
    """``sequence[i]`` gives the same again, and leaves TensorFlow's and its own generators as they were."""
    import tensorflow as tf
    from drawing_tensorflow import OfTensorFlow

    sequence = OfTensorFlow()
    generators = sequence.generator, tf.random.get_global_generator()
    before = [generator.state.numpy().tolist() for generator in generators]
    tf.random.set_seed(5)
    expected = [float(tf.random.uniform([])) for _ in range(4)]
    tf.random.set_seed(5)
    got = [float(tf.random.uniform([]))]
    first = sequence[2]
    got.append(float(tf.random.uniform([])))
    sequence[3]
    got.append(float(tf.random.uniform([])))
    again = sequence[2]
    got.append(float(tf.random.uniform([])))
    same = [kind for kind in first if kind not in (*sequence.only_alive, *sequence.no_draws)]
    assert [first[kind] for kind in same] == [again[kind] for kind in same]
    assert got == expected
    assert [generator.state.numpy().tolist() for generator in generators] == before


@pytest.mark.needs("tensorflow")
def test_the_loops_own_functions_are_left_alone() -> None:
    """A batch that is computed in the loop's process clears none of TensorFlow's kernels: a training step that draws
    goes on as it would without."""
    import tensorflow as tf
    from drawing_tensorflow import OfTensorFlow

    def losses(between: Any) -> list[float]:
        tf.random.set_seed(3)
        step = tf.function(lambda: tf.nn.dropout(tf.random.uniform([20]), 0.5))
        return [(float(tf.reduce_sum(step())), between())[0] for _ in range(4)]

    sequence = OfTensorFlow()
    assert losses(lambda: sequence[1]) == losses(lambda: None)


@pytest.mark.needs("keras")
def test_kerass_own_generator_is_put_back() -> None:
    """Behind jobs in the loop's process, without a warning of Keras's."""
    import keras

    class Drawing(Sequence):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> float:
            return float(keras.random.uniform(()))

    keras.utils.set_random_seed(2)
    alone = [float(keras.random.uniform(())) for _ in range(2)]
    keras.utils.set_random_seed(2)
    first = float(keras.random.uniform(()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = list(Drawing(seed=1))
    assert [first, float(keras.random.uniform(()))] == alone
    assert len({*drawn, *alone}) == 5


@pytest.mark.needs("tensorflow")
def test_a_seed_that_a_job_sets_is_the_jobs() -> None:
    """By ``tf.random.set_seed``, to draw the same for an image and its mask. The next job draws as if it had not."""
    import tensorflow as tf

    class Sets(Sequence):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            import tensorflow as tf

            before = float(tf.random.uniform([]))
            tf.random.set_seed(index % 2)
            image = float(tf.random.uniform([]))
            tf.random.set_seed(index % 2)
            return before, image, float(tf.random.uniform([]))

    tf.random.set_seed(9)
    expected = float(tf.random.uniform([]))
    tf.random.set_seed(9)
    serial = list(Sets(seed=1))
    assert float(tf.random.uniform([])) == expected
    assert all(image == mask for _, image, mask in serial)
    assert serial[0][1] == serial[2][1] != serial[1][1]
    assert len({before for before, _, _ in serial}) == 4
    with Sets(seed=1).prefetch(2) as batches:
        assert list(batches) == serial


@pytest.mark.needs("tensorflow")
def test_memory_of_eager_draws_is_flat() -> None:
    """10,000 jobs, each with an eager draw: a kernel for each would be 360 MB."""
    import tensorflow as tf

    class Draws(Sequence):
        process: Any = None

        def __len__(self) -> int:
            return 5_000

        def __getitem__(self, index: int) -> Any:
            self.process = self.process or psutil.Process()
            return np.asarray(tf.random.uniform([3])), self.process.memory_info().rss

    with Draws(seed=1).prefetch(1) as batches:
        used = [rss for _ in range(2) for _, rss in batches]
    assert used[-1] - used[500] < 20e6  # by then what is made once has been made


class SimCLR(Augmenter):
    """Crops, flips and colours as SimCLR's, in a traced method, by the generators of TensorFlow."""

    def augment(self, x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> Any:
        return self.views(x), y

    @property
    def views(self) -> Any:
        import tensorflow as tf

        if not hasattr(self, "_views"):

            def view(image: Any) -> Any:
                image = tf.image.random_flip_left_right(tf.image.random_crop(image, [10, 10, 3]))
                return tf.image.random_brightness(image, 0.8)

            self._views = tf.function(lambda images: tf.map_fn(view, images))
        return self._views


class Stateless(SimCLR):
    """The same, reproducible."""

    def augment(self, x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> Any:
        return self.views(x, current_seed()), y

    @property
    def views(self) -> Any:
        import tensorflow as tf

        if not hasattr(self, "_views"):

            def view(arguments: Any) -> Any:
                image, seed = arguments
                crop, flip, brightness = tf.unstack(tf.random.split(seed, 3))
                image = tf.image.stateless_random_crop(image, [10, 10, 3], crop)
                image = tf.image.stateless_random_flip_left_right(image, flip)
                return tf.image.stateless_random_brightness(image, 0.8, brightness)

            @tf.function
            def views(images: Any, seed: Any) -> Any:
                seeds = tf.random.split(seed, tf.shape(images)[0])
                return tf.map_fn(view, (images, seeds), tf.float32)

            self._views = views
        return self._views


def make_sampler(augmenter: Any) -> SingleShotMemorySampler:
    x = np.random.default_rng(0).random((60, 12, 12, 3), np.float32)
    return SingleShotMemorySampler(x, augmenter, class_per_batch=8, steps_per_epoch=6, seed=1)


@pytest.mark.parametrize("augmenter", [SimCLR, Stateless])
@pytest.mark.needs("keras", "tensorflow")
def test_fit(augmenter: type[SimCLR]) -> None:
    """The batches that ``fit`` gets, of the sampler itself and of its front-ends."""
    import keras

    class Recorded(keras.Model):  # type: ignore[misc]
        def train_step(self, data: Any) -> Any:
            seen.append(float(np.sum(data[0])))
            return {"sum": seen[-1]}

    runs = []
    for make in (make_sampler, lambda a: make_sampler(a).prefetch(0), lambda a: make_sampler(a).prefetch(2)):
        seen: list[float] = []
        model = Recorded()
        model.compile(run_eagerly=True)
        with make(augmenter()) as sequence:
            model.fit(sequence, epochs=2, shuffle=False, verbose=0)
        assert len(set(seen)) == len(seen) == 12
        runs.append(seen)
    assert (runs[0] == runs[1] == runs[2]) is (augmenter is Stateless)


# -- what is sent to workers


class OfFunction(Sequence):
    """Its batches are those of a function."""

    def __init__(self, function: Any) -> None:
        super().__init__(seed=1)
        self.function = function

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        return np.asarray(self.function(np.float32(index)))


@pytest.mark.needs("tensorflow")
def test_traced_functions_are_sent() -> None:
    """Also those that were called: by closure, of a module, bound, in a partial, recursive, with a signature."""
    import tensorflow as tf

    @tf.function
    def plain(x: Any) -> Any:
        return x + 1

    @tf.function(input_signature=[tf.TensorSpec([], tf.float32)], reduce_retracing=True)
    def signed(x: Any) -> Any:
        return x * 2

    @tf.function
    def recursive(x: Any, depth: int = 2) -> Any:
        return x if depth == 0 else recursive(x, depth - 1) + 1

    class Holder:
        offset = 3.0

        @tf.function
        def bound(self, x: Any) -> Any:
            return x + self.offset

    from drawing_tensorflow import stateless

    holder = Holder()  # a bound tf.function holds it weakly
    functions = [plain, signed, recursive, holder.bound, functools.partial(plain), tf.function(lambda x: x - 1)]
    functions.append(lambda x: stateless([1, 2]) + x)
    expected = [[float(batch) for batch in OfFunction(function)] for function in functions]
    with prefetch(OfFunction(lambda x: [function(x) for function in functions]), 1) as batches:
        got = np.array(list(batches))
    assert got.T.tolist() == expected


@pytest.mark.needs("tensorflow")
def test_a_graph_cannot_be_sent() -> None:
    """The error names it, and the way out."""
    import tensorflow as tf

    function = tf.function(lambda x: x + 1).get_concrete_function(tf.TensorSpec([], tf.float32))
    with pytest.raises(NotPicklableError, match=r"\.function .*keep the tf\.function itself"):
        OfFunction(function).prefetch(1)


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-"], input=code, capture_output=True, text=True, check=False, cwd=ROOT, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.needs("tensorflow")
def test_a_script_with_a_seed_of_its_own() -> None:
    """``tf.random.set_seed`` in every worker: the draws of traced functions still differ from worker to worker. The log
    says that they are not reproducible, once a worker."""
    printed = run(
        """
import os, tempfile, time
import tensorflow as tf
from workers import prefetch

@tf.function
def draw():
    return tf.random.uniform([])

folder = tempfile.mkdtemp()

class Draws:
    def __setstate__(self, state):
        tf.random.set_seed(42)
    def __getstate__(self):
        return 1
    def __len__(self):
        return 6
    def __getitem__(self, index):
        open(f"{folder}/{os.getpid()}", "w").close()
        while len(os.listdir(folder)) < 2:  # the other worker takes part, however long it loads
            time.sleep(0.01)
        return os.getpid(), float(draw())

with prefetch(Draws(), 2, seed=1) as batches:
    workers, drawn = zip(*batches)
print(len(set(drawn)), "of", len(drawn), "by", len(set(workers)))
"""
    )
    assert "6 of 6 by 2\n" in printed
    assert printed.count("The tf.function draw draws") == 2


@pytest.mark.needs("tensorflow")
def test_a_traced_function_of_a_script_that_was_tried_by_hand() -> None:
    """It has graphs and locks by then; the workers get its Python function."""
    printed = run(
        """
import numpy as np
import tensorflow as tf
from workers import Sequence

@tf.function
def twice(x):
    return x * 2

class Twice(Sequence):
    def __len__(self):
        return 4
    def __getitem__(self, index):
        return twice(np.full(3, index, np.float32))

seq = Twice(seed=1)
by_hand = [batch.tolist() for batch in map(seq.__getitem__, range(4))]
with seq.prefetch(1) as batches:
    print([batch.tolist() for batch in batches] == by_hand)
"""
    )
    assert "True\n" in printed


@pytest.mark.needs("tensorflow")
def test_a_fork_draws_seeds_of_its_own() -> None:
    """The server may have run a job while it imported a module; its workers must not all draw alike."""
    import tensorflow as tf

    from workers.frameworks import tensorflow_draws

    assert tf.constant(1) == 1
    OfFunction(lambda x: x)[0]  # a job, so that TensorFlow's draws are looked after
    assert tensorflow_draws._of_worker
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(into, str(tensorflow_draws._of_worker).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert int(os.read(out, 99)) != tensorflow_draws._of_worker
    os.close(out)
    os.close(into)


# -- the random generators that are found


def test_where_generators_are_found() -> None:
    """At any depth, by the same path in every process; the global ones, and those of packages, are passed over."""

    class Slots:
        __slots__ = ("inner",)

        def __init__(self) -> None:
            self.inner = {"key": (1, np.random.default_rng(0))}

    class Holder:
        of_class = np.random.default_rng(1)

        def __init__(self) -> None:
            self.slots = Slots()
            self.method = np.random.default_rng(2).permutation
            self.itself = self
            self.shuffle = np.random.shuffle
            self.choice = __import__("random").choice
            self.many = list(range(100_000))
            self.drawn = np.random.default_rng

    found = Generators(lambda: [("source", Holder())])
    found.begin(0)
    assert [path for path in found._found if path.startswith("source")] == [
        "source.method.__self__",
        "source.__class__.of_class",
        "source.slots.inner['key'][1]",
    ]


def test_a_copy_looks_for_its_own() -> None:
    """Also of a class with slots, whose state is more than its attributes."""

    class Slotted(Sequence):
        __slots__ = ("rng",)

        def __init__(self) -> None:
            super().__init__(seed=1)
            self.rng = np.random.default_rng(2)

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            return self.rng.random()

    sequence = Slotted()
    expected = [sequence[index] for index in range(3)]
    copied = copy.deepcopy(sequence)
    assert copied.rng is not sequence.rng
    assert list(copied) == expected
    with sequence.prefetch(2) as batches:
        assert list(batches) == expected


def test_generators_that_are_made_again_and_again() -> None:
    """A job that makes a new one each time is not run for ever."""
    calls = []

    class Makes(Sequence):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            calls.append(index)
            self.rng = np.random.default_rng(index)
            return self.rng.random()

    assert list(Makes(seed=1)) == [np.random.default_rng(index).random() for index in range(3)]
    assert calls == [0, 0, 1, 2]


def test_a_sampler_of_samples_that_draws_from_its_own_generator() -> None:
    """The order of an epoch is the same in all workers, also in one that has replaced another."""

    def make() -> Any:
        return SequenceArray({"x": np.arange(40)}, np.random.default_rng(7).permutation, seed=1).batch(5)

    sequence = make()
    serial = [batch["x"].tolist() for _ in range(2) for batch in sequence]
    with make().prefetch(3) as batches:
        got = []
        for number in range(2):
            got += [batch["x"].tolist() for batch in batches]
            if number == 0:
                psutil.Process(psutil.Process().children(recursive=True)[-1].pid).kill()
    assert sorted(sum_of(serial[:8])) == sorted(sum_of(serial[8:])) == list(range(40))
    assert got == serial
    assert serial[:8] != serial[8:]


def sum_of(lists: list[list[int]]) -> list[int]:
    return functools.reduce(operator.add, lists)


def test_current_seed() -> None:
    """Two integers for TensorFlow, Keras and JAX; each call in a job gives others, which depend on nothing else."""

    def draws(epoch: int, index: int) -> list[list[int]]:
        job = seeding.Job(epoch, index)
        return seeding.run_job(seeding.Stream(3), job, lambda: [current_seed().tolist() for _ in range(4)])

    first = {(epoch, index): draws(epoch, index) for epoch in range(3) for index in range(50)}
    assert all(draws(*place) == seeds for place, seeds in first.items())
    flat = [tuple(seed) for seeds in first.values() for seed in seeds]
    assert len(set(flat)) == len(flat)
    assert current_seed().dtype == np.int32
    assert current_seed().shape == (2,)
    assert (current_seed() >= 0).all()
    assert current_seed().tolist() != current_seed().tolist()  # outside of a job
    assert draws(1, 2) == GOLDEN


GOLDEN = [[111026902, 901972810], [1412066255, 958492127], [57201609, 1184335514], [2053391627, 1311354543]]


def test_modules_of_torch() -> None:
    """Of a class of their own: what they are is the same in a worker."""
    torch = pytest.importorskip("torch")

    class Uses(Sequence):
        modules = torch.ops, torch.ops.aten, torch.backends.cudnn

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            zeros = torch.ops.aten.zeros([2])
            return [module.__name__ for module in self.modules], zeros.numpy()

    with Uses().prefetch(nb_workers=1) as batches:
        assert [list(names) for names, _ in batches] == [["torch.ops", "torch.ops.aten", "torch.backends.cudnn"]] * 2
