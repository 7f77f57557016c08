"""Generators that a sequence holds draw the same on any number of workers, and after a resume."""

from __future__ import annotations

import functools
import random
import time
from typing import Any

import numpy as np
import pytest
from scripted import in_turns

from workers import Sequence

LENGTH = 6


def read(make: Any, nb_workers: Any, epochs: int = 2) -> list[Any]:
    """The batches of ``epochs``; with "auto", the loop and its workers take turns."""
    with make().prefetch(nb_workers) as batches:
        return [batch for _ in range(epochs) for batch in in_turns(batches)]


class BareBits(Sequence[Any]):
    """Bit generators, and a generator over one of them."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        kinds = np.random.PCG64, np.random.Philox, np.random.SFC64, np.random.MT19937
        self.bits = {kind.__name__: kind(5) for kind in kinds}
        self.shared = np.random.PCG64(6)
        self.over = np.random.Generator(self.shared)
        self.legacy = np.random.RandomState(np.random.Philox(7))
        self.draw = np.random.SFC64(8).random_raw

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        drawn = [bits.random_raw() for bits in self.bits.values()]
        return [*drawn, self.over.random(), self.shared.random_raw(), self.legacy.normal(), self.draw()]


@pytest.mark.parametrize("nb_workers", [1, 2, "auto"])
def test_bare_bit_generators(nb_workers: Any) -> None:
    serial = read(BareBits, 0)
    assert [len(set(column)) for column in zip(*serial, strict=True)] == [2 * LENGTH] * len(serial[0])
    assert read(BareBits, nb_workers) == serial


class Global(Sequence[Any]):
    """The bit generator of ``np.random``, and generators over it."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        self.bits = np.random.get_bit_generator()
        self.over, self.legacy = np.random.Generator(self.bits), np.random.RandomState(self.bits)

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        return [self.over.random(), np.random.random(), self.legacy.normal(), self.bits.random_raw(), random.random()]


@pytest.mark.parametrize("kind", [None, np.random.MT19937, np.random.PCG64])
@pytest.mark.parametrize("nb_workers", [1, 2, "auto"])
def test_the_global_bit_generator(nb_workers: Any, kind: Any) -> None:
    before = np.random.get_bit_generator()
    try:
        if kind is not None:
            np.random.set_bit_generator(kind(3))
        serial = read(Global, 0)
        assert [len(set(column)) for column in zip(*serial, strict=True)] == [2 * LENGTH] * len(serial[0])
        assert read(Global, nb_workers) == serial
    finally:
        np.random.set_bit_generator(before)


NAMES_OF_OURS = "_own_clock", "_fit", "_held", "_pool", "_pass", "_iterator", "_lock", "_figures", "options", "live"


class Flip:
    """Its attributes are called as those are that a front-end makes anew in each process."""

    def __init__(self) -> None:
        self.__dict__ |= {name: np.random.default_rng(number) for number, name in enumerate(NAMES_OF_OURS)}

    def __call__(self, sample: Any) -> Any:
        return [*sample, *[rng.random() for rng in vars(self).values()]]


class Flipped(Sequence[Any]):
    def __init__(self) -> None:
        super().__init__(seed=1)
        self._pool, self._lock, self._iterator = np.random.default_rng([1, 2, 3]).spawn(3)
        self.flip = Flip()

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        return self.flip([rng.random() for rng in (self._pool, self._lock, self._iterator)])


@pytest.mark.parametrize("nb_workers", [1, 2, "auto"])
def test_attributes_by_any_name(nb_workers: Any) -> None:
    serial = read(Flipped, 0)
    assert [len(set(column)) for column in zip(*serial, strict=True)] == [2 * LENGTH] * len(serial[0])
    assert read(Flipped, nb_workers) == serial


class Boxes(Sequence[Any]):
    """The boxes of many images in lists, and then what draws: also within one of the last of them."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        self.boxes: list[Any] = [[[1.0, 2.0, 3.0, 4.0] for _ in range(2)] for _ in range(5_000)]
        self.boxes.append({"jitter": [np.random.default_rng(1)]})
        self.transform = functools.partial(np.random.Generator.random, np.random.default_rng(0))

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        return float(self.transform()), float(self.boxes[-1]["jitter"][0].random())


@pytest.mark.parametrize("nb_workers", [1, 2, "auto"])
def test_generators_behind_much_data(nb_workers: Any) -> None:
    serial = read(Boxes, 0)
    assert [len(set(column)) for column in zip(*serial, strict=True)] == [2 * LENGTH] * 2
    assert read(Boxes, nb_workers) == serial


# -- pairs: two generators that are made of one seed, for an image and its mask


def numpy_kinds() -> dict[str, Any]:
    return {
        "PCG64": (lambda: np.random.default_rng(5), lambda it: float(it.random())),
        "MT19937": (lambda: np.random.Generator(np.random.MT19937(5)), lambda it: float(it.random())),
        "Philox": (lambda: np.random.Generator(np.random.Philox(key=5)), lambda it: float(it.random())),
        "bits": (lambda: np.random.SFC64(5), lambda it: int(it.random_raw())),
        "RandomState": (lambda: np.random.RandomState(5), lambda it: float(it.normal())),
        "Random": (lambda: random.Random(5), lambda it: it.random()),
    }


def torch_kinds() -> dict[str, Any]:
    import torch

    return {"torch": (lambda: torch.Generator().manual_seed(5), lambda it: float(torch.rand(1, generator=it)))}


def tensorflow_kinds() -> dict[str, Any]:
    import keras
    import tensorflow as tf

    return {
        "tensorflow": (lambda: tf.random.Generator.from_seed(5), lambda it: float(it.uniform([]))),
        "tensorflow of another seed": (
            lambda: tf.random.Generator.from_seed(6),
            lambda it: float(it.uniform([])),
        ),
        "keras": (
            lambda: keras.random.SeedGenerator(5),
            lambda it: float(keras.random.uniform((), seed=it)),
        ),
    }


class Pairs(Sequence[Any]):
    """Two generators of each kind, of one seed."""

    def __init__(self, kinds: Any) -> None:
        super().__init__(seed=1)
        self.kinds = kinds
        self.image = {name: make() for name, (make, _) in kinds().items()}
        self.mask = {name: make() for name, (make, _) in kinds().items()}

    def __len__(self) -> int:
        return LENGTH

    def draw(self, generators: Any) -> Any:
        return [draw(generators[name]) for name, (_, draw) in self.kinds().items()]

    def __getitem__(self, index: int) -> Any:
        return self.draw(self.image), self.draw(self.mask)


class Hooked(Pairs):
    """Its hooks draw from one of the two."""

    def on_epoch_begin(self) -> None:
        self.draw(self.image)

    def on_epoch_end(self) -> None:
        self.draw(self.mask)
        self.draw(self.mask)


class Replaced(Pairs):
    """Its hook puts another pair in their places, which an older one must not count for."""

    def on_epoch_end(self) -> None:
        for name, (make, _) in self.kinds().items():
            self.image[name], self.mask[name] = make(), make()


def epochs_of(batches: Any, num: int, draw: Any) -> tuple[list[Any], Any]:
    """``num`` epochs, with draws of the loop's from one generator before, after and within each; and a state."""
    got, state = [], None
    for _ in range(num):
        draw()
        for batch in in_turns(batches):
            got.append(batch)
            if len(got) % LENGTH == 3:
                draw()
            if len(got) == LENGTH + 2:
                state = batches.state_dict()
        draw()
    return got, state


@pytest.mark.parametrize(
    ("cls", "kinds"),
    [
        (Pairs, numpy_kinds),
        (Hooked, numpy_kinds),
        (Replaced, numpy_kinds),
        pytest.param(Hooked, torch_kinds, marks=pytest.mark.needs("torch")),
        pytest.param(Hooked, tensorflow_kinds, marks=pytest.mark.needs("tensorflow", "keras")),
    ],
)
def test_pairs_stay_pairs(cls: Any, kinds: Any) -> None:
    """Whoever draws from one of the two, and whenever; also after a resume."""
    all_workers = (0, 1, 2, "auto") if kinds is numpy_kinds else (0, 2)
    got, states = {}, {}
    for nb_workers in all_workers:
        sequence = cls(kinds)
        with sequence.prefetch(nb_workers) as batches:
            got[nb_workers], states[nb_workers] = epochs_of(batches, 3, lambda of=sequence: of.draw(of.mask))
    serial = got[0]
    assert all(len(set(image)) == len(image) for image, _ in serial)  # no kind draws what another one draws
    for column, name in enumerate(kinds()):
        assert len({image[column] for image, _ in serial}) == 3 * LENGTH, name
    assert [image == mask for image, mask in serial] == [True] * 3 * LENGTH
    for nb_workers in all_workers[1:]:
        assert got[nb_workers] == serial, nb_workers
    for nb_workers, state in zip((0, 2), reversed(states.values()), strict=False):
        resumed = cls(kinds)
        with resumed.prefetch(nb_workers) as batches:
            resumed.draw(resumed.image)
            batches.load_state_dict(state)
            assert [batch for _ in range(2) for batch in batches] == serial[LENGTH + 2 :], nb_workers
        if kinds is not numpy_kinds:
            break  # frameworks take long to start


def test_pairs_of_a_loop_without_a_front_end() -> None:
    sequence = Hooked(numpy_kinds)
    list(sequence)  # first seen here
    sequence.epoch = 0
    got, state = epochs_of(sequence, 3, lambda: sequence.draw(sequence.image))
    assert all(image == mask for image, mask in got)
    with Hooked(numpy_kinds).prefetch(2) as batches:
        assert epochs_of(batches, 3, lambda: None)[0] == got
    resumed = Hooked(numpy_kinds)
    resumed.load_state_dict(state)
    assert [*resumed, *resumed] == got[LENGTH + 2 :]


class Late(Sequence[Any]):
    """A generator that a later job than the first of its process makes."""

    rng: Any = None

    def __init__(self) -> None:
        super().__init__(seed=1)

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.005)  # each of the workers has more than one job
        if index < 4:
            return index
        if self.rng is None:
            self.rng = np.random.default_rng(0)
        return float(self.rng.random())


@pytest.mark.parametrize("nb_workers", [1, 2, "auto"])
def test_a_generator_that_a_later_job_makes(nb_workers: Any) -> None:
    serial = read(Late, 0)
    assert len(set(serial)) == 4 + 2 * 8
    assert read(Late, nb_workers) == serial
