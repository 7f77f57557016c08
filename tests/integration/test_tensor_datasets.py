"""Datasets that hold tensors: the same samples on any workers, whatever jobs and the loop write."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from any_workers import WORKERS
from scripted import have, scripted

import workers
from workers import prefetch

torch = pytest.importorskip("torch")

ROWS, COLUMNS = 8, 20_000


def rows() -> Any:
    return torch.arange(float(ROWS)).repeat_interleave(COLUMNS).view(ROWS, COLUMNS)


class Tensors(torch.utils.data.Dataset):  # type: ignore[misc, name-defined]
    """The same rows in several kinds of tensors."""

    def __init__(self) -> None:
        self.of = torch.utils.data.TensorDataset(rows(), torch.arange(ROWS))
        self.views = list(rows())
        self.in_shared_memory = rows().share_memory_()
        self.shared = torch.from_numpy(workers.share(rows().numpy()))
        self.half = rows().bfloat16()
        self.parameter = torch.nn.Parameter(rows())

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> Any:
        whole, number = self.of[index]
        others = self.views, self.in_shared_memory, self.shared, self.half.float(), self.parameter.detach()
        assert all(torch.equal(each[index], whole) for each in others)
        return whole[:2].clone(), number


class Writes(Tensors):
    """Its samples are made in place, which torch allows."""

    def __getitem__(self, index: int) -> Any:
        sample = super().__getitem__(index)
        self.of.tensors[0][index] += 100
        for each in (self.views, self.in_shared_memory, self.half, self.parameter.data):
            each[index] += 100
        return sample


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
def test_tensors_of_any_kind(nb_workers: Any, executor: str) -> None:
    """What the loop has torch write between epochs is seen in the next one."""
    dataset = Tensors()
    with prefetch(dataset, nb_workers=nb_workers, executor=executor, batch_size=2) as batches:
        if nb_workers == "auto":
            scripted(batches, lambda look: None)
        for epoch in range(3):
            found = []
            for x, y in batches:
                found.append((x[:, 1].tolist(), y.tolist()))
                if nb_workers == "auto" and epoch == 0 and len(found) == 1:
                    have(batches, 1)
            numbers = np.arange(ROWS).reshape(-1, 2)
            assert found == [((row + 10 * epoch).tolist(), row.tolist()) for row in numbers]
            with torch.no_grad():
                dataset.of.tensors[0][:, :5] += 10
                dataset.of.tensors[0][:, 5:] += 10
                for each in (*dataset.views, dataset.in_shared_memory, dataset.shared, dataset.half, dataset.parameter):
                    each.add_(10)
            dataset.views = list(dataset.views)


def test_what_a_job_writes_is_its_worker_s_own() -> None:
    dataset = Writes()
    with prefetch(dataset, nb_workers=1, batch_size=2) as batches:
        assert [x[:, 1].tolist() for x, _ in batches] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert torch.equal(dataset.of.tensors[0], rows())
    assert torch.equal(dataset.in_shared_memory, rows())


def test_tensors_of_tensorflow() -> None:
    tf: Any = pytest.importorskip("tensorflow")
    tensor = tf.constant(rows().numpy())
    dataset = workers.SequenceArray({"index": np.arange(ROWS)}).map(lambda sample: tensor[int(sample["index"])][:2])
    with dataset.batch(2).prefetch(nb_workers=1) as batches:
        assert [batch[:, 0].tolist() for batch in batches] == [[0, 1], [2, 3], [4, 5], [6, 7]]
