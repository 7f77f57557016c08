"""``LogLoading``: figures in the logs of Keras and Lightning, as their own loggers write them."""

from __future__ import annotations

import csv
import itertools
import logging
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty import wait_for, worker_processes

from workers import LogLoading, Sequence, StateError
from workers.metrics.logged import LoggedFigures

LENGTH = 12
NAMES = {f"data/{name}" for name in ("wait_share", "batches_per_s", "job_ms", "workers", "restarts", "cache_hits")}


class Rows(Sequence[Any]):
    def __init__(self, length: int = LENGTH) -> None:
        super().__init__(seed=1)
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return np.full((8, 4), index, np.float32), np.zeros((8, 1), np.float32)


class Stream(Rows):
    """Is read in this process, where it needs no workers."""

    is_stream = True


def read(path: Path) -> list[dict[str, float]]:
    """The rows of a CSV file, without empty cells."""
    with path.open() as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def events(folder: Path) -> dict[str, list[int]]:
    """{a name in TensorBoard's files: the steps that it was written at}."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), {"scalars": 0, "tensors": 0})
    accumulator.Reload()
    tags = accumulator.Tags()
    return {name: [each.step for each in accumulator.Scalars(name)] for name in tags["scalars"]} | {
        name: [each.step for each in accumulator.Tensors(name)] for name in tags["tensors"]
    }


def test_no_job_has_ended() -> None:
    """A curve of what a job takes does not drop to 0 where there was none; the others are 0."""
    with Rows().prefetch(nb_workers=0) as batches:
        figures = LoggedFigures(batches)
        list(batches)
        first, second = figures.read(), figures.read()
    assert set(first) == NAMES
    assert second == dict.fromkeys(NAMES, 0) | {"data/job_ms": first["data/job_ms"]}
    assert first["data/job_ms"] > 0


# -- Keras


@pytest.fixture(scope="module")
def keras() -> Any:
    return pytest.importorskip("keras")


@pytest.fixture(scope="module")
def model(keras: Any) -> Any:
    made = keras.Sequential([keras.layers.Dense(1)])
    made.compile(loss="mse")
    made.build((None, 4))
    return made


@pytest.mark.parametrize("is_named", [False, True])
def test_epochs_of_keras(is_named: bool, keras: Any, model: Any, tmp_path: Path) -> None:
    """Each epoch has its own, of the training data alone. Later callbacks see them."""

    def kill(epoch: int, logs: Any) -> None:
        if epoch == 1:
            before = batches.report().as_dict()["restarts"]
            os.kill(wait_for(lambda: batches.report().workers[0].pid), signal.SIGKILL)
            wait_for(lambda: batches.report().as_dict()["restarts"] > before)

    killing = keras.callbacks.LambdaCallback(on_epoch_begin=kill)
    written = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    with Rows().cache().prefetch(nb_workers=2) as batches, Rows(5).prefetch(nb_workers=1) as others:
        log = LogLoading(batches if is_named else None, framework="keras")
        given = {"verbose": 0, "callbacks": [log, killing, written], "validation_data": others}
        history = model.fit(batches, epochs=3, **given).history
        again = model.fit(batches, epochs=1, **given).history
    rows = read(tmp_path / "log.csv")
    assert set(history) == {"loss", "val_loss"} | NAMES
    assert rows[0].keys() == set(again) | {"epoch"}
    assert (history["data/workers"], again["data/workers"]) == ([2] * 3, [2])
    assert (history["data/restarts"], again["data/restarts"]) == ([0, 1, 0], [0])
    assert history["data/cache_hits"][0] < LENGTH  # what Keras has read before, to learn the shapes
    assert history["data/cache_hits"][1:] + again["data/cache_hits"] == [LENGTH] * 3
    assert all(0 < share <= 1 for share in history["data/wait_share"])
    assert min(history["data/batches_per_s"] + history["data/job_ms"]) > 0


@pytest.mark.parametrize("per_execution", [1, 2])
def test_steps_of_keras(per_execution: int, keras: Any, model: Any) -> None:
    """From the end of the first ``every`` steps on, whatever the epoch."""
    seen: list[Any] = []
    see = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(dict(logs)))
    model.steps_per_execution = per_execution
    model.train_function = None
    try:
        with Rows().prefetch(nb_workers=1) as batches:
            model.fit(batches, epochs=3, verbose=0, callbacks=[LogLoading(every=8, framework="keras"), see])
    finally:
        model.steps_per_execution, model.train_function = 1, None
    has = [set(logs) >= NAMES for logs in seen]
    first = 8 // per_execution
    assert has == [False] * first + [True] * (3 * LENGTH // per_execution - first)
    values = [logs["data/batches_per_s"] for logs in seen[first:]]
    changes = [at for at, (one, two) in enumerate(itertools.pairwise(values), 1) if one != two]
    assert changes == [at // per_execution for at in range(8, 3 * LENGTH - 8, 8)]


@pytest.mark.needs("tensorboard")
def test_tensorboard_of_keras(keras: Any, model: Any, tmp_path: Path) -> None:
    board = keras.callbacks.TensorBoard(tmp_path, update_freq=4, write_graph=False)
    with Rows().prefetch(nb_workers=1) as batches:
        model.fit(batches, epochs=2, verbose=0, callbacks=[LogLoading(every=4, framework="keras"), board])
    found = events(tmp_path / "train")
    for name in NAMES:
        assert (found[f"epoch_{name}"], found[f"batch_{name}"]) == ([0, 1], [8, 12, 16, 20, 24]), name


def test_a_sequence_in_fit(model: Any) -> None:
    with Rows() as sequence:
        history = model.fit(sequence, epochs=2, verbose=0, callbacks=[LogLoading(framework="keras")]).history
    assert set(history) >= NAMES


def test_nothing_to_log_in_keras(keras: Any, model: Any) -> None:
    x, y = np.zeros((8, 4)), np.zeros((8, 1))
    with Rows().prefetch(nb_workers=0) as batches:
        model.fit(batches, verbose=0)  # which fit does not read next
        with pytest.raises(TypeError, match="LogLoading has found no sequence that fit reads"):
            model.fit(x, y, verbose=0, callbacks=[LogLoading(framework="keras")])
        history = model.fit(x, y, verbose=0, callbacks=[LogLoading(batches, framework="keras")]).history
        assert history["data/batches_per_s"] == [0]
    with pytest.raises(StateError, match=r"no model\.fit has read this Stream with workers"):
        model.fit(Stream(), verbose=0, callbacks=[LogLoading(framework="keras")])


# -- Lightning


@pytest.fixture(scope="module")
def lightning() -> Any:
    made = pytest.importorskip("lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return made


def fit(lightning: Any, data: Any, validation: Any = None, epochs: int = 2, **options: Any) -> None:
    import torch

    class Model(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def training_step(self, batch: Any, batch_index: int) -> Any:
            loss = self.layer(batch[0]).mean()
            self.log("loss", loss)
            return loss

        def validation_step(self, batch: Any, batch_index: int) -> None:
            pass

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 1e-3)

    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = lightning.Trainer(max_epochs=epochs, accelerator="cpu", log_every_n_steps=5, **quiet, **options)
    trainer.fit(Model(), data, validation)


@pytest.mark.filterwarnings("ignore")
def test_lightning(lightning: Any, tmp_path: Path) -> None:
    """At the steps at which Lightning logs, after every 5 of them and after the rest of an epoch."""
    csv_logger = lightning.pytorch.loggers.CSVLogger(tmp_path, version=0)
    options: dict[str, Any] = {"logger": csv_logger, "callbacks": [LogLoading(every=5)]}  # Lightning's: it is imported
    with (
        Rows().prefetch(nb_workers=2, output="torch") as batches,
        Rows(7).prefetch(nb_workers=1, output="torch") as others,
    ):
        fit(lightning, batches, others, **options)
        worker_processes()[0].kill()
        wait_for(lambda: batches.report().as_dict()["restarts"])
    rows = read(tmp_path / "lightning_logs/version_0/metrics.csv")
    ours = [row for row in rows if NAMES & set(row)]
    assert [row["step"] for row in ours] == [4, 9, 11, 16, 21, 23]
    assert all(set(row) >= NAMES for row in ours)
    assert {row["step"] for row in rows if "loss" in row} == {4, 9, 14, 19}
    assert {(row["data/workers"], row["data/restarts"]) for row in ours} == {(2, 0)}
    assert all(0 <= row["data/wait_share"] <= 1 and row["data/batches_per_s"] > 0 for row in ours)


@pytest.mark.needs("tensorboard")
@pytest.mark.filterwarnings("ignore")
def test_tensorboard_of_lightning(lightning: Any, tmp_path: Path) -> None:
    board = lightning.pytorch.loggers.TensorBoardLogger(tmp_path, version=0)
    with Rows().prefetch(nb_workers=1, output="torch") as batches:
        fit(lightning, batches, logger=board, callbacks=[LogLoading(every=6, framework="lightning")])
    found = events(tmp_path / "lightning_logs/version_0")
    for name in NAMES:
        assert found[name] == [5, 11, 17, 23], name


@pytest.mark.filterwarnings("ignore")
def test_what_lightning_reads(lightning: Any, tmp_path: Path) -> None:
    """Something else, or a front-end within something else; or another one in each epoch."""
    import torch

    logger = lightning.pytorch.loggers.CSVLogger(tmp_path, version=0)
    log = LogLoading(every=4, framework="lightning")
    with pytest.raises(TypeError, match=r"no front-end in trainer.train_dataloader, which is a list"):
        fit(lightning, [(torch.zeros(8, 4),)] * 3, logger=logger, callbacks=[log])

    made: list[Any] = []
    with Rows().prefetch(nb_workers=1, output="torch") as batches:

        class Wrapped:
            def __iter__(self) -> Any:
                return iter(batches)

        class Data(lightning.LightningDataModule):  # type: ignore[misc]
            def train_dataloader(self) -> Any:
                made.append(Rows(4).prefetch(nb_workers=len(made), output="torch"))
                return made[-1]

        named = LogLoading(batches, 4, "lightning")
        fit(lightning, Wrapped(), epochs=1, logger=logger, callbacks=[named])
        own = {"logger": logger, "callbacks": [log], "reload_dataloaders_every_n_epochs": 1}
        fit(lightning, Data(), **own)
    for each in made:
        each.close()
    rows = [row for row in read(tmp_path / "lightning_logs/version_0/metrics.csv") if NAMES & set(row)]
    assert [(row["step"], row["data/workers"]) for row in rows] == [(3, 1), (7, 1), (11, 1), (3, 0), (7, 1)]


# -- both


def test_which_framework(keras: Any, lightning: Any, model: Any) -> None:
    assert isinstance(LogLoading(), lightning.pytorch.Callback)
    assert isinstance(LogLoading(framework="keras"), keras.callbacks.Callback)
    with pytest.raises(TypeError, match=r'write LogLoading\(framework="keras"\)'):
        model.fit(np.zeros((8, 4)), np.zeros((8, 1)), verbose=0, callbacks=[LogLoading()])
    with Rows().prefetch(nb_workers=0) as batches:
        log = LogLoading(batches, 7)
    assert (log.batches, log.every) == (batches, 7)


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"batches": [1, 2]}, TypeError, "batches must be a front-end or a sequence, not a list"),
        ({"every": 0}, ValueError, "every must be an integer >= 1, not 0"),
        ({"framework": "jax"}, ValueError, "framework must be one of None, 'keras', 'lightning'"),
    ],
)
def test_mistakes(given: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        LogLoading(**given)
