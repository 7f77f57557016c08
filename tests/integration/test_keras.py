"""fit, evaluate and predict on any sequence: every batch of an epoch once, in the workers."""

from __future__ import annotations

import contextlib
import copy
import gc
import itertools
import math
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import psutil
import pytest
from PIL import Image
from telling import LENGTH, Shared, SharedHooked, Telling, Unsendable, as_it_is, keep

from sampler import SingleShotMemorySampler, load_image
from workers import Sequence, current_job, prefetch

keras: Any = pytest.importorskip("keras")

ROOT = Path(__file__).resolve().parents[2]


class Recorder(keras.Model):  # type: ignore[misc]
    """Keeps the batches that it is given: {"train": [...], "test": [...], "predict": [...]}."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, list[Any]] = {"train": [], "test": [], "predict": []}
        self.dense = keras.layers.Dense(1)
        self.compile("sgd", "mse", run_eagerly=True)

    def call(self, x: Any) -> Any:
        return self.dense(x)

    def train_step(self, data: Any) -> Any:
        self.seen["train"].append(data[0].numpy())
        return {"loss": 0.0}

    def test_step(self, data: Any) -> Any:
        self.seen["test"].append(data[0].numpy())
        return {"loss": 0.0}

    def predict_step(self, data: Any) -> Any:
        self.seen["predict"].append(data[0].numpy())
        return super().predict_step(data[0])

    def column(self, column: int, of: str = "train") -> list[int]:
        return [int(batch[0, column]) for batch in self.seen[of]]


@pytest.fixture
def has_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sequence that fit is given as it is has a worker at once, not when it pays."""
    monkeypatch.setattr("workers.for_keras.reading.NB_WORKERS", 1)


@pytest.fixture(scope="module", autouse=True)
def _tensorflow_is_started() -> None:
    """So that its descriptors are there before the police look."""
    Recorder().fit(np.zeros((4, 5)), np.zeros((4, 1)), verbose=0)
    gc.freeze()  # TensorFlow's million objects need not be looked through after each test


@pytest.fixture(autouse=True)
def _clear() -> Iterator[None]:
    yield
    keras.backend.clear_session()
    gc.collect()


KINDS: dict[str, Callable[[], Any]] = {
    "sequence": Telling,
    "prefetch": lambda: Telling().prefetch(nb_workers=2),
    "map": lambda: Telling().map(as_it_is, nb_workers=2),
    "threads": lambda: Telling().prefetch(nb_workers=2, executor="thread"),
    "as they come": lambda: Telling().prefetch(nb_workers=2, in_order=False),
    "serial": lambda: Telling().prefetch(nb_workers=0),
    "map in this process": lambda: Telling().map(as_it_is),
    "of any object": lambda: prefetch([Telling()[index] for index in range(LENGTH)], 2),
}


ONCE = [*[(kind, True) for kind in KINDS], *[(kind, False) for kind in ("sequence", "prefetch", "as they come")]]


@pytest.mark.parametrize(("kind", "shuffle"), ONCE)
def test_every_batch_once(kind: str, shuffle: bool) -> None:
    """Each epoch has each batch once, and those of the plain loop."""
    model = Recorder()
    with KINDS[kind]() as sequence:
        assert isinstance(sequence, keras.utils.PyDataset)
        model.fit(sequence, epochs=3, shuffle=shuffle, verbose=0)
        told = model.column(0)
        epochs = [told[start : start + LENGTH] for start in range(0, 3 * LENGTH, LENGTH)]
        assert [sorted(epoch) for epoch in epochs] == [list(range(LENGTH))] * 3
        assert all((epoch == list(range(LENGTH))) is not shuffle for epoch in epochs)
        if kind != "of any object":
            assert model.column(1) == [0] * LENGTH + [1] * LENGTH + [2] * LENGTH
            reference = Telling()
            expected = sorted(x[0, 4] for _ in range(3) for x, _ in reference)
            assert sorted(batch[0, 4] for batch in model.seen["train"]) == expected
        assert sequence.epoch == 3


@pytest.mark.usefixtures("has_workers")
@pytest.mark.parametrize("kind", ["sequence", "prefetch", "map"])
def test_in_the_workers(kind: str) -> None:
    """All jobs are done by processes of the pool."""
    model = Recorder()
    with KINDS[kind]() as sequence:
        model.fit(sequence, epochs=2, verbose=0)
        pool = {process.pid for process in psutil.Process().children(recursive=True)}
        assert set(model.column(2)) <= pool


def test_what_lies_in_between() -> None:
    """on_epoch_begin and on_epoch_end run once an epoch, here, and the workers see what they change."""
    model = Recorder()
    sequence = Telling()
    with sequence.prefetch(nb_workers=2) as batches:
        model.fit(batches, epochs=3, verbose=0)
        assert model.column(3) == model.column(1)
        assert sequence.ended == sequence.begun == [0, 1, 2]
        list(batches)  # a loop goes on where fit ended
        model.fit(batches, epochs=1, verbose=0)
        assert set(model.column(1)[-LENGTH:]) == {4}
        assert sequence.ended == sequence.begun == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("has_workers")
@pytest.mark.parametrize("kind", ["sequence", "prefetch", "callback"])
def test_what_is_written_to_shared_memory_between_epochs(kind: str) -> None:
    """By a hook, or by a callback that says so: all batches of the next epoch have it."""
    model, epochs = Recorder(), 3
    source = Shared() if kind == "callback" else SharedHooked()

    def write(epoch: int, logs: Any) -> None:
        if kind == "callback":
            source.shared[0] = epoch + 1
            source.changed()

    callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=write)]
    with source if kind == "sequence" else prefetch(source, 2) as batches:
        model.fit(batches, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks)
        assert model.column(0) == list(range(2 * LENGTH)) * epochs
        assert model.column(1) == [epoch for epoch in range(epochs) for _ in range(2 * LENGTH)]


class OfKeras(keras.utils.PyDataset):  # type: ignore[misc]
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        return index


class OfKerasHooked(OfKeras):
    def on_epoch_end(self) -> None:
        pass


def test_hooks_of_a_dataset_of_keras() -> None:
    """Nothing is computed before they have run; Keras's own do nothing."""
    with prefetch(OfKeras(), 0) as plain, prefetch(OfKerasHooked(), 0).map(as_it_is) as hooked:
        assert hooked._has_hooks()
        assert not plain._has_hooks()


@pytest.mark.parametrize("nb_workers", [None, 0, 2])
def test_a_shard(nb_workers: int | None) -> None:
    """Each epoch has the batches of this rank, with the draws that they have in the whole."""
    model = Recorder()
    whole = {int(x[0, 0]): x[0, 4] for x, _ in Telling()}
    part = Telling().shard(1, 3)
    with part if nb_workers is None else part.prefetch(nb_workers) as sequence:
        model.fit(sequence, epochs=2, shuffle=False, verbose=0)
        mine = list(range(1, LENGTH // 3 * 3, 3))
        assert model.column(0) == mine * 2
        assert model.column(1) == [0] * len(mine) + [1] * len(mine)
        assert [batch[0, 4] for batch in model.seen["train"][: len(mine)]] == [whole[index] for index in mine]
        assert sequence.epoch == 2


@pytest.mark.parametrize("kind", ["sequence", "prefetch", "map"])
def test_an_order_of_its_own(kind: str) -> None:
    """shuffle() is the order of fit(shuffle=False), and that of the loop."""
    model = Recorder()
    with Telling().shuffle() as shuffled:
        expected = [int(x[0, 0]) for _ in range(2) for x, _ in shuffled]
    with KINDS[kind]().shuffle() as sequence:
        model.fit(sequence, epochs=2, shuffle=False, verbose=0)
        assert model.column(0) == expected
        assert model.column(1) == [0] * LENGTH + [1] * LENGTH


def test_what_keras_does_not_take() -> None:
    """The arguments that it refuses for a PyDataset, it refuses."""
    for arguments in ({"y": np.zeros(3)}, {"sample_weight": np.zeros(3)}):
        with Telling() as sequence, pytest.raises(ValueError, match="should not be passed"):
            Recorder().fit(sequence, verbose=0, **arguments)


def test_a_keras_that_is_not_known(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """It reads the sequence by itself, in its own process, and the log says so."""
    from keras.src.trainers import data_adapters

    own = data_adapters.PyDatasetAdapter.__wrapped__
    monkeypatch.setattr(data_adapters, "PyDatasetAdapter", own)
    monkeypatch.delattr(own, "_get_iterator")
    monkeypatch.setattr("workers.sequence.base._fitted", [])
    with Telling() as sequence:
        assert isinstance(sequence, keras.utils.PyDataset)
        assert data_adapters.PyDatasetAdapter is own
    assert "model.fit computes the batches in its own process: Keras" in caplog.text


def test_warmup() -> None:
    """is_warmup is true for the first epochs of the fit, though Keras probes and ends an epoch before them."""
    model = Recorder()
    with SingleShotMemorySampler(np.arange(50.0), keep, class_per_batch=4, steps_per_epoch=6, warmup=2) as sampler:
        model.fit(sampler, epochs=4, verbose=0)
    assert model.column(0) == [1] * 12 + [0] * 12


def test_evaluate_and_predict() -> None:
    """Also in turn, and with other data for validation."""
    model = Recorder()
    with Telling() as sequence, Telling(3).prefetch(nb_workers=1) as others:
        model.predict(sequence, verbose=0)
        model.fit(sequence, epochs=2, validation_data=others, verbose=0)
        model.evaluate(sequence, verbose=0)
        model.predict(sequence, verbose=0)
    whole = list(range(LENGTH))
    assert model.column(0, "predict") == whole + whole
    assert model.column(0, "test") == [0, 1, 2, 0, 1, 2, *whole]
    assert model.column(1, "test") == [0] * 3 + [1] * 3 + [2] * LENGTH
    assert sorted(model.column(0)) == sorted(whole + whole)
    assert model.column(1) == [0] * LENGTH + [1] * LENGTH


def test_steps_per_epoch() -> None:
    """An epoch is a pass over the sequence, however Keras divides it; the same on each run."""
    runs = []
    for _ in range(2):
        model = Recorder()
        with Telling() as sequence:
            model.fit(sequence, epochs=4, steps_per_epoch=5, shuffle=False, verbose=0)
        runs.append(model.seen["train"])
        assert model.column(0) == [*range(LENGTH), *range(LENGTH)]
        assert model.column(1) == [0] * LENGTH + [1] * LENGTH
    assert all(np.array_equal(one[:, 4], other[:, 4]) for one, other in zip(*runs, strict=True))


@pytest.mark.parametrize("nb_workers", [0, 2])
@pytest.mark.parametrize("how", ["fit", "evaluate", "predict"])
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_an_exception(nb_workers: int, how: str) -> None:
    """It stops fit as what it is; after that all works again."""
    model = Recorder()
    sequence = Telling(bad=7)
    with sequence.prefetch(nb_workers=nb_workers) as batches:
        options = {"shuffle": False} if how == "fit" else {}
        with pytest.raises(KeyError, match="batch 7") as caught:
            getattr(model, how)(batches, verbose=0, **options)
        assert ("telling.py" in "".join(caught.value.__notes__)) is (nb_workers == 2)  # the worker's traceback
        assert max(map(len, model.seen.values())) == 7
        sequence.bad = -1
        model.fit(batches, verbose=0)
        assert sorted(model.column(0)[-LENGTH:]) == list(range(LENGTH))


def test_an_exception_in_the_probe() -> None:
    model = Recorder()
    with Telling(bad=1) as sequence, pytest.raises(KeyError, match="batch 1"):
        model.fit(sequence, verbose=0)


class Weighted(Recorder):
    """Keeps the weights that come with each batch."""

    def train_step(self, data: Any) -> Any:
        self.seen["test"].append(data[2].numpy())
        return super().train_step(data)


def test_with_class_weights(recwarn: Any) -> None:
    """Keras computes weights from y before TensorFlow sees the batch."""
    model = Weighted()
    with Telling().prefetch(nb_workers=1) as batches:
        model.fit(batches, class_weight={0: 3.5}, verbose=0)
    assert [weights.tolist() for weights in model.seen["test"]] == [[3.5, 3.5]] * LENGTH
    with Telling(bad=7).prefetch(nb_workers=1) as batches, pytest.raises(KeyError, match="batch 7"):
        model.fit(batches, class_weight={0: 1.0}, verbose=0)


def test_skipped() -> None:
    """Keras is given as many batches as it asks for: the one before in the place of the skipped one."""
    model = Recorder()
    with Telling(bad=7).prefetch(nb_workers=2, on_error="skip") as batches:
        model.fit(batches, epochs=2, shuffle=False, verbose=0)
    assert model.column(0) == [0, 1, 2, 3, 4, 5, 6, 6, 8, 9] * 2


class Meddling(keras.callbacks.Callback):  # type: ignore[misc]
    """What a user's callback may do between two steps."""

    def __init__(self, act: Callable[[int], None]) -> None:
        super().__init__()
        self.act = act

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.act(batch)


def test_a_callback_that_reads_batches() -> None:
    """It gets what it asks for, draws from the same generators as Keras, and fit gets every batch once."""
    model = Recorder()
    sequence = Telling(200)
    with sequence.prefetch(nb_workers=2) as batches:

        def act(step: int) -> None:
            random.random()
            assert batches[step % 7][0][0, 0] == step % 7
            assert sequence[3][0][0, 0] == 3

        model.fit(batches, epochs=2, verbose=0, callbacks=[Meddling(act)])
    assert sorted(model.column(0)) == sorted([*range(200), *range(200)])
    assert os.getpid() not in model.column(2)


@pytest.mark.parametrize("kind", ["sequence", "prefetch"])
def test_a_callback_that_loops(kind: str) -> None:
    """Over all of the sequence between two epochs, and over some of it within one: fit goes on with whole epochs."""
    model = Recorder()
    looped = []

    def act(step: int) -> None:
        if step == LENGTH - 1 and model.column(1)[-1] < 4:
            looped.append([int(x[0, 1]) for x, _ in sequence])
        if step == 3 and model.column(1)[-1] >= 4:
            looped.append([int(next(iter(sequence))[0][0, 1])])

    with KINDS[kind]() as sequence:
        model.fit(sequence, epochs=5, verbose=0, callbacks=[Meddling(act)])
        epochs = [model.column(1)[start : start + LENGTH] for start in range(0, 5 * LENGTH, LENGTH)]
        told = [model.column(0)[start : start + LENGTH] for start in range(0, 5 * LENGTH, LENGTH)]
    assert all(sorted(each) == list(range(LENGTH)) for each in told)
    assert looped[:2] == [[1] * LENGTH, [3] * LENGTH]
    assert [set(each) for each in epochs[:2]] == [{0}, {2}]
    assert all(min(later) > max(each) for each, later in itertools.pairwise(epochs))


def test_a_worker_is_killed() -> None:
    model = Recorder()
    with Telling(60).prefetch(nb_workers=2) as batches:

        def act(step: int) -> None:
            if step % 20 == 10:
                with contextlib.suppress(ProcessLookupError):  # it is dead already
                    os.kill(model.column(2)[-1], signal.SIGKILL)

        model.fit(batches, epochs=2, verbose=0, callbacks=[Meddling(act)])
    assert sorted(model.column(0)) == sorted([*range(60), *range(60)])


@pytest.mark.parametrize("how", ["stop", "Ctrl-C"])
def test_left_in_the_middle(how: str) -> None:
    """The next fit is of the next epoch, whole; and a loop after that."""
    model = Recorder()
    with Telling(30).prefetch(nb_workers=2) as batches:

        def act(step: int) -> None:
            if step == 4:
                if how == "Ctrl-C":
                    raise KeyboardInterrupt
                model.stop_training = True

        try:
            model.fit(batches, epochs=3, verbose=0, callbacks=[Meddling(act)])
        except KeyboardInterrupt:
            assert how == "Ctrl-C"
        assert len(model.seen["train"]) == 5
        model.fit(batches, verbose=0)
        assert sorted(model.column(0)[5:]) == list(range(30))
        assert set(model.column(1)[5:]) == {1}
        assert [x[0, 1] for x, _ in batches] == [2] * 30


def test_a_fit_after_a_loop_left_in_the_middle() -> None:
    model = Recorder()
    with Telling().prefetch(nb_workers=1) as batches:
        next(iter(batches))
        model.fit(batches, verbose=0)
    assert model.column(1) == [1] * LENGTH


@pytest.mark.usefixtures("has_workers")
def test_what_cannot_be_sent(caplog: Any) -> None:
    """Is computed here, which the log says."""
    model = Recorder()
    with Unsendable() as sequence:
        model.fit(sequence, verbose=0)
    assert sorted(model.column(0)) == list(range(LENGTH))
    assert ".lock cannot be sent to worker processes" in caplog.text


@pytest.mark.own_server
@pytest.mark.usefixtures("has_workers")
def test_nobody_holds_it_any_more() -> None:
    """The pool of a sequence that was given to Keras as it is ends with the sequence."""
    sequence = Telling()
    Recorder().fit(sequence, verbose=0)
    assert psutil.Process().children()
    del sequence
    keras.backend.clear_session()  # TensorFlow holds what it has generated from
    gc.collect()
    assert not psutil.Process().children()


class Ported(Telling):
    """As it may come from a PyDataset: with its own ``workers``, and a file that is opened when needed."""

    def __init__(self, workers: int = 4) -> None:
        super().__init__()
        self.workers = workers
        self.file: Any = None

    def __getitem__(self, index: int) -> Any:
        if self.file is None:
            self.file = threading.Lock()  # stands for what cannot be sent
        assert self.workers == 4
        return super().__getitem__(index)


class Hooks:
    ended: Any

    def on_epoch_end(self) -> None:
        self.ended.append(7)


class Mixed(Hooks, Telling):
    pass


class First(keras.utils.PyDataset, Telling):  # type: ignore[misc]
    def __init__(self) -> None:
        Telling.__init__(self)


class Delegating(Sequence):
    """Passes on what it does not know."""

    def __init__(self, inner: Any) -> None:
        super().__init__(seed=1)
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        if name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Any:
        x, y = self.inner[index]
        return x + 100, y


@pytest.mark.usefixtures("has_workers")
@pytest.mark.parametrize("kind", [Ported, Mixed, First])
def test_other_ways_to_write_a_sequence(kind: Any) -> None:
    model = Recorder()
    with kind() as sequence:
        model.fit(sequence, epochs=3, verbose=0)
        model.fit(sequence, epochs=1, verbose=0)
        assert model.column(1) == [0] * LENGTH + [1] * LENGTH + [2] * LENGTH + [3] * LENGTH
        assert os.getpid() not in model.column(2)
        assert sequence.ended == ([7] * 4 if kind is Mixed else [0, 1, 2, 3])


def test_a_sequence_that_delegates() -> None:
    model = Recorder()
    with Telling() as inner, Delegating(inner) as outer:
        model.evaluate(inner, verbose=0)
        model.fit(outer, verbose=0)
        assert sorted(model.column(0)) == list(range(100, 100 + LENGTH))


def test_a_copy_has_its_own_workers() -> None:
    model = Recorder()
    with Telling() as sequence:
        model.evaluate(sequence, verbose=0)
        with copy.copy(sequence) as other:
            other.length = 4
            model.fit(other, verbose=0)
            assert sorted(model.column(0)) == [0, 1, 2, 3]
            assert other.epoch == sequence.epoch == 1
        assert sequence[0][0][0, 1] == 1


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_who_else_asks() -> None:
    """By hand, from any thread, after a fit that failed: the true error, and nothing counts."""
    model = Recorder()
    with Telling(bad=7) as sequence, ThreadPoolExecutor(1) as threads:
        with pytest.raises(KeyError, match="batch 7"):
            model.fit(sequence, shuffle=False, verbose=0)
        with pytest.raises(KeyError, match="batch 7"):
            threads.submit(lambda: sequence[7]).result()
        sequence.bad = -1
        model.fit(sequence, verbose=0)
        assert threads.submit(lambda: sequence[7]).result()[0][0, 1] == 2
        sequence.on_epoch_end()
        assert sequence.ended == [0, 1, 2]
        assert {x[0, 1] for x, _ in sequence} == {2}


def test_validation_steps() -> None:
    """Each validation is of another epoch, from its first batch on."""
    model = Recorder()
    with Telling(4) as train, Telling(20) as other:
        model.fit(train, epochs=3, validation_data=other, validation_steps=3, verbose=0)
    assert model.column(0, "test") == [0, 1, 2] * 3
    assert model.column(1, "test") == [0, 0, 0, 1, 1, 1, 2, 2, 2]


class Growing(Telling):
    def on_epoch_end(self) -> None:
        self.length += 1


def test_a_sequence_that_grows() -> None:
    model = Recorder()
    with Growing() as sequence:
        model.fit(sequence, epochs=3, verbose=0)
    assert [model.column(1).count(epoch) for epoch in range(4)] == [10, 10, 10, 0]


@pytest.mark.parametrize("bad", [0, 1])
def test_the_first_is_skipped(bad: int) -> None:
    model = Recorder()
    with Telling(bad=bad).prefetch(nb_workers=1, on_error="skip") as batches:
        model.fit(batches, shuffle=False, verbose=0)
    assert len(model.column(0)) == LENGTH
    assert set(model.column(0)) == set(range(LENGTH)) - {bad}


class FirstTwoFail(Telling):
    def __getitem__(self, index: int) -> Any:
        if index < 2:
            raise ValueError(index)
        return super().__getitem__(index)


@pytest.mark.parametrize("nb_workers", [0, 1])
def test_a_function_decides_on_each_that_fails(nb_workers: int) -> None:
    """Also on those that are tried in the place of the first; what it returns counts."""
    asked: list[int] = []

    def on_error(error: Exception) -> str:
        asked.append(error.args[0])
        return "skip" if asked.count(error.args[0]) > 1 else "retry"

    model = Recorder()
    with FirstTwoFail().prefetch(nb_workers=nb_workers, on_error=on_error) as batches:
        model.fit(batches, shuffle=False, verbose=0)
    assert len(model.column(0)) == LENGTH
    assert set(model.column(0)) == set(range(2, LENGTH))
    assert asked.count(0) >= 2
    assert asked.count(1) >= 2
    raises = FirstTwoFail().prefetch(nb_workers=nb_workers, on_error=lambda error: "raise")
    with raises as batches, pytest.raises(ValueError, match="0"):
        model.fit(batches, shuffle=False, verbose=0)
    answers = {0: "skip", 1: "later"}
    wrong = FirstTwoFail().prefetch(nb_workers=nb_workers, on_error=lambda error: answers[error.args[0]])
    with wrong as batches, pytest.raises(ValueError, match="on_error must return 'raise', 'skip' or 'retry'"):
        model.fit(batches, shuffle=False, verbose=0)


class Samples:
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        if index in (3, 8, 9):
            raise ValueError(index)
        return np.full(2, index, np.float32), np.float32(index)


@pytest.mark.parametrize("on_error", ["skip", lambda error: "skip"])
def test_samples_that_are_skipped(on_error: Any) -> None:
    """Their batches have fewer; in the place of one without any comes the one before."""
    model = Recorder()
    with prefetch(Samples(), 0, batch_size=2, on_error=on_error) as batches:
        model.fit(batches, shuffle=False, verbose=0)
    assert model.column(0) == [0, 2, 4, 6, 6]


def twice(batch: Any) -> Any:
    return [batch, batch]


def test_what_fit_cannot_use() -> None:
    model = Recorder()
    with Telling().map(twice, nb_workers=1) as batches, pytest.raises(TypeError, match="returns a list of batches"):
        model.fit(batches, verbose=0)

    class Items:
        def __iter__(self) -> Any:
            return iter([])

    with prefetch(Items(), 1) as batches, pytest.raises(ValueError, match="Items has no batches in epoch 0"):
        model.fit(batches, shuffle=False, verbose=0)


def test_classes_that_want_no_subclasses() -> None:
    class Registered(Telling):
        names: ClassVar[list[str]] = []

        def __init_subclass__(cls, *, name: str, **kwargs: Any) -> None:
            super().__init_subclass__(**kwargs)
            cls.names.append(name)

    assert isinstance(Registered(), keras.utils.PyDataset)
    assert Registered.names == []


def test_it_is_a_dataset_and_stays_what_it_is() -> None:
    sequence = Telling()
    assert isinstance(sequence, keras.utils.PyDataset)
    assert isinstance(sequence, (Telling, Sequence))
    assert type(sequence) is Telling
    for protocol in range(2, 6):
        loaded = pickle.loads(pickle.dumps(sequence, protocol))
        assert type(loaded) is Telling
        assert loaded.seed == sequence.seed
    assert type(copy.deepcopy(sequence)) is Telling
    assert b"PyDataset" not in pickle.dumps(sequence)
    assert pickle.loads(pickle.dumps(sequence.__class__())).length == LENGTH


class Cifar10(keras.utils.PyDataset):  # type: ignore[misc]
    """As in the documentation of Keras."""

    def __init__(self, x_set: Any, y_set: Any, batch_size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.x, self.y = x_set, y_set
        self.batch_size = batch_size
        self.ended = 0

    def __len__(self) -> int:
        return math.ceil(len(self.x) / self.batch_size)

    def __getitem__(self, index: int) -> Any:
        if current_job() is not None and current_job().worker is not None:  # type: ignore[union-attr]
            assert os.getppid() == IMPORTER  # TensorFlow was imported by the server, for all workers
        low = index * self.batch_size
        high = min(low + self.batch_size, len(self.x))
        images = [load_image(name, (8, 8)) for name in self.x[low:high]]
        return np.array(images).reshape(high - low, -1)[:, :5].astype(np.float64), np.array(self.y[low:high])

    def on_epoch_end(self) -> None:
        self.ended += 1


IMPORTER = os.getpid()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_dataset_of_keras(tmp_path: Path, kind: str) -> None:
    """On image files, in a for loop and in fit."""
    names = []
    for at in range(23):
        names.append(str(tmp_path / f"{at}.{kind.lower()}"))
        Image.fromarray(np.full((16, 16, 3), 10 * at, np.uint8)).save(names[-1], kind)
    dataset = Cifar10(names, np.arange(23.0)[:, None], batch_size=4)
    model = Recorder()
    with prefetch(dataset, nb_workers=2) as batches:
        for _ in range(2):
            got = list(batches)
            assert np.concatenate([y for _, y in got])[:, 0].tolist() == list(range(23))
            assert [round(x[0, 0] / 10) for x, _ in got] == [0, 4, 8, 12, 16, 20]
        assert dataset.ended == 2
        model.fit(batches, epochs=2, verbose=0)
        assert sorted(round(x) for x in model.column(0)) == sorted([0, 40, 80, 120, 160, 200] * 2)
        assert dataset.ended == 4


class Numbered(keras.utils.PyDataset):  # type: ignore[misc]
    """Says by num_batches alone how many batches it has."""

    def __init__(self, num_batches: int | None) -> None:
        super().__init__()
        self.number = num_batches

    @property
    def num_batches(self) -> int | None:
        return self.number

    def __getitem__(self, index: int) -> Any:
        return np.full((2, 5), [index, current_job().epoch, os.getpid(), 0, 0], np.float64), np.zeros((2, 1))


@pytest.mark.parametrize("nb_workers", [2, "auto"])
def test_a_dataset_without_an_end(nb_workers: Any) -> None:
    """fit, evaluate and predict read as many steps as they are told. The epochs of one fit go on in it."""
    model = Recorder()
    with prefetch(Numbered(None), nb_workers) as batches:
        model.fit(batches, epochs=2, steps_per_epoch=4, shuffle=False, verbose=0)
        model.evaluate(batches, steps=3, verbose=0)
        model.predict(batches, steps=3, verbose=0)
        model.fit(batches, epochs=1, steps_per_epoch=2, shuffle=False, verbose=0)
    assert model.column(0) == [*range(8), 0, 1]
    assert model.column(0, "test") == model.column(0, "predict") == [0, 1, 2]
    assert model.column(1)[:8] == [0] * 8
    assert model.column(1)[8] > 0
    if nb_workers == 2:
        assert os.getpid() not in model.column(2)


def test_a_length_that_only_num_batches_says() -> None:
    model = Recorder()
    with prefetch(Numbered(5), 2) as batches:
        model.fit(batches, epochs=2, shuffle=True, verbose=0)
        model.evaluate(batches, verbose=0)
    assert sorted(model.column(0)) == sorted([*range(5)] * 2)
    assert model.column(1) == [0] * 5 + [1] * 5
    assert model.column(0, "test") == list(range(5))


class Iterable:
    """An iterable of 5 batches, which has no indices."""

    def __init__(self) -> None:
        self.num_begun = 0

    def __iter__(self) -> Iterator[Any]:
        self.num_begun += 1
        for index in range(5):
            yield np.full((2, 5), [index, np.random.random(), os.getpid(), 0, 0]), np.zeros((2, 1))


class IterableOfLength(Iterable):
    def __len__(self) -> int:
        return 5


class Singles(IterableOfLength):
    """Samples of these."""

    def __iter__(self) -> Iterator[Any]:
        for x, y in super().__iter__():
            yield from zip(x, y, strict=True)

    def __len__(self) -> int:
        return 10


def shifted(batch: Any) -> Any:
    x, y = batch
    return x + np.array([0, 0, 0, os.getpid(), 0]), y


STREAMS: dict[str, Callable[[Any], Any]] = {
    "in the loop": lambda nb_workers: prefetch(IterableOfLength(), nb_workers, seed=1),
    "mapped": lambda nb_workers: prefetch(IterableOfLength(), 0, seed=1).map(shifted, nb_workers),
    "of no length": lambda nb_workers: prefetch(Iterable(), nb_workers, seed=1),
    "of samples": lambda nb_workers: prefetch(Singles(), nb_workers, seed=1, batch_size=2),
}


@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras's, where it is not told a length
@pytest.mark.parametrize(
    ("kind", "nb_workers"),
    [("in the loop", 0), ("mapped", 2), ("mapped", "auto"), ("of no length", 0), ("of samples", 2)],
)
def test_what_can_only_be_iterated(kind: str, nb_workers: Any) -> None:
    """Each epoch is one pass over it, as of a loop."""
    model = Recorder()
    with STREAMS[kind](nb_workers) as batches:
        model.fit(batches, epochs=3, shuffle=False, verbose=0)
        assert batches.epoch == 3
        model.evaluate(batches, verbose=0)
        model.predict(batches, verbose=0)
    assert model.column(0) == list(range(5)) * 3
    assert model.column(0, "test") == model.column(0, "predict") == list(range(5))
    if kind == "mapped" and nb_workers == 2:
        assert os.getpid() not in model.column(3)
    if kind != "of samples" and nb_workers != "auto":
        with STREAMS[kind](0) as batches:
            expected = [x[0, 1] for _ in range(3) for x, _ in batches]
        assert [x[0, 1] for x in model.seen["train"]] == expected


def test_steps_of_what_can_only_be_iterated() -> None:
    """An epoch of it may take several of Keras's."""
    model = Recorder()
    with prefetch(IterableOfLength(), 0) as batches:
        model.fit(batches, epochs=2, steps_per_epoch=2, verbose=0)
    assert model.column(0) == [0, 1, 2, 3]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_what_can_be_iterated_once_only() -> None:
    def once() -> Iterator[Any]:
        yield from Iterable()

    with prefetch(once(), 0) as batches, pytest.raises(ValueError, match=r"cannot begin again.*give a factory"):
        Recorder().fit(batches, shuffle=False, verbose=0)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_an_iterable_that_raises() -> None:
    class Failing(IterableOfLength):
        def __iter__(self) -> Iterator[Any]:
            yield from itertools.islice(super().__iter__(), 3)
            raise KeyError("batch 3")

    model = Recorder()
    with prefetch(Failing(), 0) as batches, pytest.raises(KeyError, match="batch 3"):
        model.fit(batches, epochs=1, verbose=0)


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_an_iterable_of_one_batch() -> None:
    """Keras, which is told no length, asks for two to learn their shapes."""

    class One(Iterable):
        def __iter__(self) -> Iterator[Any]:
            yield from itertools.islice(super().__iter__(), 1)

    model = Recorder()
    with prefetch(One(), 0) as batches:
        model.fit(batches, shuffle=False, verbose=0)
    assert model.column(0) == [0]


@pytest.mark.parametrize("backend", ["jax"])
def test_another_backend(backend: str) -> None:
    """The same batches, once each, in order without shuffle; an exception as what it is."""
    script = ROOT / "tests" / "support" / "keras_backend.py"
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    run = [sys.executable, str(script)]
    done = subprocess.run(run, check=False, env=environment, capture_output=True, text=True, timeout=100)
    assert done.stdout.split("\n")[-2:] == ["all is well", ""], done.stdout + done.stderr
