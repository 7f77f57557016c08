"""What ``seq.report()`` and the log say of a sequence that Keras reads."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
import pytest

from workers import Sequence, prefetch

keras: Any = pytest.importorskip("keras")

LENGTH = 12


class Slow(Sequence[Any]):
    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.01)
        return np.full((8, 4), index, np.float32), np.zeros((8, 1), np.float32)


@pytest.fixture(scope="module")
def model() -> Any:
    made = keras.Sequential([keras.layers.Dense(1)])
    made.compile(loss="mse")
    made.build((None, 4))
    return made


@pytest.mark.parametrize("kind", ["sequence", "front-end"])
def test_a_line_at_each_epochs_end(kind: str, model: Any, caplog: pytest.LogCaptureFixture) -> None:
    sequence: Any = Slow() if kind == "sequence" else prefetch(Slow(), nb_workers=1)
    try:
        with caplog.at_level(logging.INFO, "workers"):
            model.fit(sequence, epochs=3, verbose=0)
    finally:
        sequence.close()
    lines = [each.message for each in caplog.records if each.message.startswith("epoch ")]
    assert [line.split(" in ")[0] for line in lines] == [f"epoch {epoch}: {LENGTH} batches" for epoch in range(3)]
    assert all("the loop waited" in line for line in lines)


def test_the_report_in_and_after_fit(model: Any) -> None:
    sequence, reports = Slow(), []
    see = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: reports.append(sequence.report()))
    model.fit(sequence, epochs=3, verbose=0, callbacks=[see])
    reports.append(sequence.report())
    counts = [report.num_batches for report in reports]
    assert counts[0] >= LENGTH
    assert counts == sorted(counts)
    assert counts[-1] >= 3 * LENGTH
    assert reports[-1].wait.total > 0
    assert "nput-bound" in str(reports[-1]), reports[-1]
    sequence.close()
