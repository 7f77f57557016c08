"""Checkpoints of Lightning hold where the loop stands, and a resumed fit goes on with the next batch."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workers import Sequence, current_rng

pytestmark = pytest.mark.needs("lightning")
LENGTH = 20


class Drawn(Sequence[Any]):
    def __init__(self) -> None:
        super().__init__(seed=1)

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        return np.full(4, index, np.float32), current_rng().random()


def fitted(folder: Path, steps: int, nb_workers: Any, checkpoint: Path | None = None) -> list[Any]:
    """Return the batches that ``fit`` has seen."""
    import lightning
    import torch

    class Model(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.seen = torch.nn.Linear(4, 1), list[Any]()

        def training_step(self, batch: Any, batch_index: int) -> Any:
            self.seen.append((int(batch[0][0]), float(batch[1])))
            return self.layer(batch[0]).mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 1e-3)

    saving = lightning.pytorch.callbacks.ModelCheckpoint(folder, "{step}", every_n_train_steps=7, save_top_k=-1)
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    model = Model()
    with Drawn().shuffle().prefetch(nb_workers, output="torch") as batches:
        trainer = lightning.Trainer(max_steps=steps, max_epochs=3, accelerator="cpu", callbacks=[saving], **quiet)
        trainer.fit(model, batches, ckpt_path=checkpoint, weights_only=False)
    return model.seen


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("nb_workers", [0, 2, "auto"])
def test_a_fit_goes_on(tmp_path: Path, nb_workers: Any) -> None:
    """From the middle of an epoch, on any number of workers."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    whole = fitted(tmp_path / "whole", 50, 0)
    assert [sorted(index for index, _ in whole[first : first + LENGTH]) for first in (0, LENGTH)] == [
        list(range(LENGTH))
    ] * 2
    assert fitted(tmp_path / "part", 33, nb_workers) == whole[:33]
    assert fitted(tmp_path / "rest", 50, nb_workers, tmp_path / "part" / "step=28.ckpt") == whole[28:]
