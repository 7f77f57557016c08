"""Tensors of every kind as samples: stacked as they travel as batches, or an error that says which one it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from any_workers import WORKERS, Several, epochs_on

from sampler import ContrastiveAugmenter, SingleShotMemorySampler
from workers import SequenceArray, prefetch

torch = pytest.importorskip("torch")
ml_dtypes = pytest.importorskip("ml_dtypes")

LENGTH = 4


def full(index: int) -> Any:
    return torch.full((3,), float(index))


KINDS: dict[str, tuple[Callable[[int], Any], Any]] = {  # (sample ``index``, the dtype of its batches)
    "bfloat16": (lambda index: full(index).bfloat16(), ml_dtypes.bfloat16),
    "float8_e4m3fn": (lambda index: full(index).to(torch.float8_e4m3fn), ml_dtypes.float8_e4m3fn),
    "float8_e5m2": (lambda index: full(index).to(torch.float8_e5m2), ml_dtypes.float8_e5m2),
    "0-d bfloat16": (lambda index: torch.tensor(float(index)).bfloat16(), ml_dtypes.bfloat16),
    "requires_grad": (lambda index: full(index).requires_grad_(), np.float32),
    "not a leaf": (lambda index: full(index).requires_grad_() * 1, np.float32),
    "parameter": (lambda index: torch.nn.Parameter(full(index)), np.float32),
    "conj": (lambda index: torch.complex(full(index), torch.zeros(3)).conj(), np.complex64),
    "neg": (lambda index: torch.complex(torch.zeros(3), -full(index)).conj().imag, np.float32),
    "some with gradients": (lambda index: full(index).requires_grad_(index % 2 == 1), np.float32),
}
NO_ARRAYS: dict[str, tuple[Callable[[], Any], str]] = {
    "sparse": (lambda: torch.eye(3).to_sparse(), "is a Tensor, which is sparse: return its parts, or make it dense"),
    "nested": (
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        "is a Tensor, which is nested: return its parts, or make it dense",
    ),
    "meta": (lambda: torch.ones(3, device="meta"), "is a Tensor, which cannot become a numpy array"),
}


def samples_of(kind: str) -> list[Any]:
    return [{"x": KINDS[kind][0](index), "y": [KINDS[kind][0](index)]} for index in range(LENGTH)]


def stack_of(kind: str) -> Any:
    return torch.stack([KINDS[kind][0](index) for index in range(LENGTH)])


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
def test_samples_are_stacked(nb_workers: Any, executor: str) -> None:
    sequences: dict[str, Any] = {}
    for kind in KINDS:
        held = samples_of(kind)
        of_samples = SequenceArray({"index": np.arange(LENGTH)}).map(lambda sample, held=held: held[sample["index"]])
        sequences[f"{kind}, samples"] = of_samples.batch(2)
        sequences[f"{kind}, array"] = SequenceArray({"x": stack_of(kind)}).batch(2)
        sequences[f"{kind}, list"] = SequenceArray({"x": [sample["x"] for sample in samples_of(kind)]}).batch(2)
    for epoch in epochs_on(Several(sequences), nb_workers, executor):
        for at, batch in enumerate(epoch):
            for name in sequences:
                x = batch[name]["x"]
                assert x.dtype == KINDS[name.partition(",")[0]][1], name
                assert np.real(x).astype(float).reshape(2, -1)[:, 0].tolist() == [2 * at, 2 * at + 1], name
                assert np.array_equal(batch[name].get("y", [x])[0], x), name


@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_other_sources(kind: str) -> None:
    make, dtype = KINDS[kind]
    found = [
        batch["x"]
        for source in ((sample for sample in samples_of(kind)), samples_of(kind))
        for batch in prefetch(source, nb_workers=0, batch_size=2)
    ]
    data = stack_of(kind), [make(index) for index in range(LENGTH)]
    found += [SingleShotMemorySampler(x, None, LENGTH, seed=1)[0][0] for x in data]
    found.append(SingleShotMemorySampler(range(LENGTH), None, LENGTH, load_example_fn=make, seed=1)[0][0])
    views = ContrastiveAugmenter(lambda example: make(int(example)), num_views=2)
    found += SingleShotMemorySampler(np.arange(LENGTH), views, LENGTH, seed=1)[0][0]
    assert [x.dtype for x in found] == [np.dtype(dtype)] * 9
    for x in found[4:]:
        assert sorted(np.real(x).astype(float).reshape(LENGTH, -1)[:, 0]) == list(range(LENGTH))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("kind", NO_ARRAYS)
def test_tensors_that_are_no_arrays(kind: str) -> None:
    make, text = NO_ARRAYS[kind]
    samples = [{"x": (index, np.ones(3) if index == 0 else make())} for index in range(LENGTH)]
    with pytest.raises(TypeError, match=rf"^sample\['x'\]\[1\] {text}"):
        next(iter(prefetch(samples, nb_workers=0, batch_size=2)))
    with pytest.raises(TypeError, match=rf"^arrays\['x'\] {text}"):
        SequenceArray({"x": [make(), make()]})
    with pytest.raises(TypeError, match=f"^x {text}"):
        SingleShotMemorySampler([make(), make()], None, 2)
    with pytest.raises(TypeError, match=f"^the result of load_example_fn {text}"):
        SingleShotMemorySampler([1, 2], None, 2, load_example_fn=lambda item: make())[0]


def test_tensors_of_tensorflow_that_are_no_arrays() -> None:
    tf: Any = pytest.importorskip("tensorflow")
    makers: list[Any] = [lambda: tf.sparse.from_dense([1, 0]), lambda: tf.ragged.constant([[1], [2, 3]])]
    for make in makers:
        with pytest.raises(
            TypeError, match=r"^sample\['x'\] is a \w+Tensor, which is no plain array: return its parts"
        ):
            next(iter(prefetch([{"x": make()}] * 2, nb_workers=0, batch_size=2)))
        with pytest.raises(TypeError, match=r"^arrays\['x'\] is a \w+Tensor, which is no plain array"):
            SequenceArray({"x": [make(), make()]})
    text = SequenceArray({"x": [tf.constant("a\0"), tf.constant("b")]})
    assert [text[0]["x"], text[1]["x"]] == [b"a\0", b"b"]
