"""fit on the backend that KERAS_BACKEND names: run in a process of its own by test_keras."""

import os

import keras
import numpy as np
import pytest

from workers import Sequence
from workers.for_keras import reading

reading.NB_WORKERS = 1  # of a sequence that fit is given as it is: at once, and not when they pay

LENGTH = 12


class Telling(Sequence):
    def __init__(self, bad=-1):
        super().__init__(seed=1)
        self.bad = bad

    def __len__(self):
        return LENGTH

    def __getitem__(self, index):
        if index == self.bad:
            raise KeyError(f"batch {index}")
        return np.full((2, 3), [index, self.epoch, os.getpid()], np.float32), np.zeros((2, 1), np.float32)


model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
model.compile("sgd", "mse", run_eagerly=True)
seen = []
step = {name: getattr(model, name) for name in ("train_step", "test_step")}


def recorded(name):
    def recording(*args):
        seen.append([int(each) for each in np.asarray(keras.ops.convert_to_numpy(args[-1][0]))[0]])
        return step[name](*args)

    return recording


for name in step:
    setattr(model, name, recorded(name))
assert keras.config.backend() == os.environ["KERAS_BACKEND"]
for shuffle in (False, True):
    for make in (Telling, lambda: Telling().prefetch(nb_workers=2), lambda: Telling().prefetch(nb_workers=0)):
        seen.clear()
        with make() as sequence:
            assert isinstance(sequence, keras.utils.PyDataset)
            model.fit(sequence, epochs=2, shuffle=shuffle, verbose=0)
            model.evaluate(sequence, verbose=0)
        whole = list(range(LENGTH))
        indices = [index for index, _, _ in seen]
        assert sorted(indices[:LENGTH]) == sorted(indices[LENGTH : 2 * LENGTH]) == indices[2 * LENGTH :] == whole
        assert (indices[:LENGTH] == whole) is not shuffle
        assert [epoch for _, epoch, _ in seen] == [0] * LENGTH + [1] * LENGTH + [2] * LENGTH
        is_serial = getattr(sequence, "nb_workers", None) == 0
        assert ({os.getpid()} == {pid for _, _, pid in seen}) is is_serial
        assert is_serial or os.getpid() not in {pid for _, _, pid in seen}

with Telling(bad=7).prefetch(nb_workers=2) as batches, pytest.raises(KeyError, match="batch 7"):
    model.fit(batches, shuffle=False, verbose=0)
print("all is well")
