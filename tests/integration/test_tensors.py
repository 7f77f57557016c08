"""Batches as tensors of torch, JAX and TensorFlow: over the same memory, of every dtype, on the device in time."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
import torch
from arrays import (
    LARGE,
    Batches,
    Example,
    Of,
    OnlyIter,
    Pair,
    Unsteady,
    call,
    doubled,
    key,
    nested,
    numbers,
    numbers_only,
    odd,
    ragged,
    same,
    sparse,
    sparse_of_jax,
    sparse_of_tensorflow,
    with_index,
)

from workers import SequenceArray, SequenceMap, prefetch

OUTPUTS = ["torch", "jax", "tf"]
KINDS = {"torch": torch.Tensor, "jax": jax.Array, "tf": tf.Tensor}


def value(tensor: Any) -> Any:
    return tensor.tolist() if torch.is_tensor(tensor) else np.asarray(tensor).tolist()


def address(tensor: Any) -> int:
    if torch.is_tensor(tensor):
        return tensor.data_ptr()
    if isinstance(tensor, jax.Array):
        return int(tensor.unsafe_buffer_pointer())
    return int(np.from_dlpack(tensor).ctypes.data)


@pytest.mark.parametrize("nb_workers", [0, 2])
@pytest.mark.parametrize("output", OUTPUTS)
def test_every_array_of_a_batch_is_a_tensor(output: Any, nb_workers: int) -> None:
    with prefetch(Batches(numbers), nb_workers, output=output) as batches:
        for _ in range(2):
            got = list(batches)
            assert len(got) == 12
            for index, batch in enumerate(got):
                (x, y), (example, others) = batch["pair"], batch["all"]
                assert all(isinstance(each, KINDS[output]) for each in (x, y, example.x))
                assert (type(batch["pair"]), type(example), example.name) == (Pair, Example, "a")
                assert others[:3] == (None, 2.5, "text")
                assert value(x) == [index] * LARGE
                assert value(y) == [index] * 3
                assert value(example.x) == [index] * 5


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_tensor_is_over_the_memory_of_its_batch_and_keeps_it(output: Any) -> None:
    """However long it is kept, and whatever becomes of the front-end; and the memory is used again when it is gone."""

    with prefetch(Batches(numbers_only), 2, output=output) as batches:
        kept = [next(iter(batches))]
        for _ in range(20):
            kept += list(batches)[:2]
            places = {address(tensor) for tensor in batches}
        assert len(places) < 40
        assert len({address(tensor) for tensor in kept}) == len(kept)
    del batches
    gc.collect()
    assert [value(tensor)[-1] for tensor in kept] == [0] + [0, 1] * 20
    mapped = Path("/proc/self/maps").read_text()
    assert any(
        int(low, 16) <= address(kept[-1]) < int(high, 16) and "memfd" in line
        for line in mapped.splitlines()
        for low, high in [line.split()[0].split("-")]
    ), "it was copied"


OTHERS = ["bfloat16", "float8_e4m3fn", "float8_e5m2"]
DTYPES = ["bool", "int8", "uint8", "int16", "uint16", "int32", "int64", "float16", "float32", "float64", "complex64"]


@pytest.mark.parametrize("output", OUTPUTS)
def test_dtypes(output: Any) -> None:
    """What a worker has of a dtype is a tensor of that dtype. JAX has 32 bits."""
    dtypes = [*DTYPES, *OTHERS]
    with SequenceMap([Of(dtype, False) for dtype in dtypes], 1, call, output=output) as batches:
        for dtype, tensor in zip(dtypes, batches, strict=True):
            check_dtype(output, dtype, tensor)


def test_dtypes_of_torch_that_numpy_does_not_have() -> None:
    with SequenceMap([Of(dtype, True) for dtype in OTHERS], 1, call, output="torch") as batches:
        for dtype, tensor in zip(OTHERS, batches, strict=True):
            check_dtype("torch", dtype, tensor)


def check_dtype(output: str, dtype: str, tensor: Any) -> None:
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    assert isinstance(tensor, KINDS[output])
    name = tensor.dtype.name if output == "tf" else str(tensor.dtype).replace("torch.", "")
    assert name == (dtype if output != "jax" else str(jax.dtypes.canonicalize_dtype(kind)))
    back = tensor.to(torch.complex64).numpy() if torch.is_tensor(tensor) else np.asarray(tensor).astype(np.complex64)
    assert back.tolist() == np.arange(4).astype(kind).astype(np.complex64).reshape(2, 2).tolist()


@pytest.mark.parametrize("output", OUTPUTS)
def test_arrays_that_are_not_plain(output: Any) -> None:
    """Other byte orders, strides and sizes; what the framework has no tensors for stays an array."""
    x = np.arange(24.0, dtype=np.float32).reshape(4, 6)
    with prefetch(Batches(odd), 1, output=output) as batches:
        for swapped, fortran, empty, scalar, dates in batches:
            assert value(swapped) == value(fortran) == x.tolist()
            assert tuple(empty.shape) == (0, 6)
            assert value(scalar) == 3
            assert isinstance(dates, np.ndarray)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (sparse, r"batch\['x'\]\[1\] is a Tensor, which is sparse: .*dense"),
        (nested, r"batch\[0\] is a Tensor, which is nested"),
        (ragged, r"batch\.y is a RaggedTensor, which is no plain array"),
        (sparse_of_tensorflow, r"batch\.x is a SparseTensor, which is no plain array"),
        (sparse_of_jax, r"batch is a BCOO, which is no plain array"),
        (key, r"batch\['key'\] is a PRNGKeyArray, which cannot become a numpy array"),
    ],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_what_is_no_plain_array_is_named(make: Any, says: str) -> None:
    for nb_workers in (0, 1) if make in (sparse, nested) else (0,):  # a worker would have to import TensorFlow for it
        with prefetch(Batches(make), nb_workers) as batches, pytest.raises(TypeError, match=says):
            next(batches)


def test_a_tensor_of_a_class_of_its_own_is_an_array() -> None:
    class Image(torch.Tensor):
        pass

    with prefetch(Batches(lambda index: torch.ones(3).as_subclass(Image)), 1) as batches:
        assert all(type(batch) is np.ndarray for batch in batches)


def test_what_is_made_of_it_has_tensors_too() -> None:
    array = SequenceArray({"x": np.arange(40.0).reshape(20, 2)}, seed=1)
    with array.prefetch(1, output="torch") as samples:
        for made in (samples.batch(5), samples.shuffle().batch(5), samples.map(same, 1)):
            with made:
                assert all(torch.is_tensor(batch["x"]) for batch in made)
        again = copy.copy(samples)
        with again:
            assert all(torch.is_tensor(sample["x"]) for sample in again)
        assert pickle.loads(pickle.dumps(samples))._output.name == "torch"
    assert not torch.is_tensor(array[0]["x"])


def test_collate_fn_comes_before(tmp_path: Path) -> None:
    def collate(batch: Any, source: Any) -> Any:
        assert isinstance(batch, np.ndarray)
        return {"x": batch}

    with SequenceMap(Batches(numbers_only), 2, None, collate_fn=collate, output="torch") as batches:
        assert all(torch.is_tensor(batch["x"]) for batch in batches)


# -- on a device. "meta" is one of torch's without memory; JAX makes two of the CPU.


@pytest.mark.parametrize("depth", [0, 1, 2, 50])
@pytest.mark.parametrize("nb_workers", [0, 2])
def test_batches_are_moved_ahead_in_order_and_once(nb_workers: int, depth: int) -> None:
    with prefetch(Unsteady(), nb_workers, output="torch").to_device("meta", depth) as batches:
        for _ in range(3):
            got, iterator = [], iter(batches)
            while True:
                try:
                    index, x = next(iterator)
                    assert x.device.type == "meta"
                    got.append(index)
                except LookupError:
                    got.append(5)
                except StopIteration:
                    break
            assert got == list(range(12))


def test_a_source_that_is_read_here_and_fails() -> None:
    with SequenceMap(OnlyIter(), 2, with_index, output="torch").to_device("meta", 4) as batches:
        for _ in range(2):
            iterator = iter(batches)
            got = [next(iterator)[0] for _ in range(7)]
            with pytest.raises(OSError, match="gone"):
                next(iterator)
            assert got == list(range(7))


@pytest.mark.parametrize("depth", [1, 3])
def test_a_state_counts_what_the_loop_has_got(depth: int) -> None:
    """Not what is on the device ahead of it; also of samples that are put together here."""

    def front() -> Any:
        chain = SequenceArray({"x": np.arange(12)}, seed=1).shuffle().map(doubled, 2, output="torch").batch(5)
        return chain.to_device("cpu") if depth == 0 else chain

    with front() as batches:
        expected = [batch.tolist() for batch in batches]
    for stop in (0, 1, 3, len(expected) - 1):
        with front() as batches:
            batches._output.tensors.depth = depth
            iterator = iter(batches)
            got = [next(iterator).tolist() for _ in range(stop)]
            state = batches.state_dict()
        with front() as batches:
            batches._output.tensors.depth = depth
            batches.load_state_dict(state)
            assert got + [batch.tolist() for batch in batches] == expected


def test_on_the_cpu_nothing_is_copied_or_done_ahead() -> None:
    for output, device in (("torch", "cpu"), ("jax", "cpu"), ("tf", "/CPU:0")):
        with prefetch(Batches(numbers_only), 1, output=output).to_device(device, 4) as batches:  # type: ignore[arg-type]
            assert batches._output is not None
            assert batches._output.tensors.depth == 0
            assert [value(batch)[0] for batch in batches] == list(range(12))


def test_bad_devices() -> None:
    with prefetch(Batches(numbers_only), 0) as batches, pytest.raises(TypeError, match="output='torch', 'jax' or"):
        batches.to_device("cpu")
    with prefetch(Batches(numbers_only), 0, output="torch") as batches:
        with pytest.raises(RuntimeError, match="nowhere"):
            batches.to_device("nowhere")
        with pytest.raises(ValueError, match="depth must be an integer >= 0, not -1"):
            batches.to_device("cpu", -1)
    with pytest.raises(ValueError, match="output must be one of None, 'torch', 'jax', 'tf', not 'numpy'"):
        prefetch(Batches(numbers_only), 0, output="numpy")  # type: ignore[arg-type]


JAX_LOOP = """
import jax, numpy as np
from workers import SequenceMap

def made(index):
    return index, np.full(50_000, index, np.float32)

second = jax.devices()[1]
for nb_workers in (0, 2):
    with SequenceMap(list(range(12)), nb_workers, made, output="jax").to_device(second, depth=3) as batches:
        for epoch in range(2):
            got = [(index, float(x.sum()) / 50_000, x.devices()) for index, x in batches]
            assert got == [(index, index, {second}) for index in range(12)], got
"""


def test_jax_on_a_second_device() -> None:
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", JAX_LOOP], env=environment, check=True, timeout=120)
