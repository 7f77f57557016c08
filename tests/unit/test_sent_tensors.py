"""Tensors on their way to the workers: as the memory that they lie in, which is sent once."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

import workers
from workers.cluster.actor import _mapped
from workers.process import replica
from workers.process.change_detector import ChangeDetector
from workers.process.replica import Parcel, Pickled

torch = pytest.importorskip("torch")

LENGTH = 40_000  # of floats: large enough to be shared


class Tagged(torch.Tensor):  # type: ignore[misc, name-defined]
    """A subclass, which is pickled as torch does it."""


def loaded(parcel: Parcel) -> Any:
    return replica.load(parcel.message(), [os.dup(file) for file in parcel.descriptors])


def floats(length: int = LENGTH) -> Any:
    return torch.arange(float(length))


def tagged(tensor: Any) -> Any:
    made = tensor.as_subclass(Tagged)
    made.tag = "m"
    return made


def views_of(whole: Any) -> dict[str, Any]:
    complex_view = torch.view_as_complex(whole.view(-1, 2))
    return {
        "whole": whole,
        "part": whole[10:20],
        "empty": whole[5:5],
        "0-d": whole[7],
        "transposed": whole.view(-1, 4).T[1:],
        "every tenth": whole[3::10],
        "expanded": whole[:3].expand(4, 3),
        "other dtype": whole.view(torch.bfloat16),
        "conj": complex_view.conj(),
        "neg": complex_view.conj().imag,
        "parameter": torch.nn.Parameter(whole),
        "with gradient": whole.detach().requires_grad_(),
        "tagged": tagged(whole),
        "shared by torch": whole.detach(),
    }


def assert_same(theirs: Any, mine: Any, name: str) -> None:
    assert type(theirs) is type(mine), name
    assert (theirs.dtype, theirs.shape, theirs.stride()) == (mine.dtype, mine.shape, mine.stride()), name
    assert (theirs.requires_grad, theirs.is_conj(), theirs.is_neg()) == (
        mine.requires_grad,
        mine.is_conj(),
        mine.is_neg(),
    ), name
    assert torch.equal(theirs, mine), name


@pytest.mark.parametrize("length", [40, LENGTH])
@pytest.mark.parametrize("kind", ["own", "share_memory_", "from_numpy", "workers.share"])
def test_views_of_a_storage_are_views_again(kind: str, length: int) -> None:
    whole = floats(length)
    if kind == "share_memory_":
        whole.share_memory_()
    elif kind != "own":
        whole = torch.from_numpy(workers.share(whole.numpy()) if kind == "workers.share" else whole.numpy().copy())
    views = views_of(whole)
    parcel = Parcel(Pickled(views))
    assert sum(piece.nbytes for piece in parcel.pieces[:1]) < 20_000 + (whole.nbytes if kind != "workers.share" else 0)
    assert parcel.compare(Pickled(views)).is_same
    theirs = loaded(parcel)
    for name, mine in views.items():
        assert_same(theirs[name], mine, name)
    assert theirs["tagged"].tag == "m"
    assert len({each.untyped_storage().data_ptr() for each in theirs.values()}) == 1
    if kind == "workers.share":
        whole += 1
        assert torch.equal(theirs["part"], whole[10:20])
        return
    theirs["whole"][10] = -1.0  # torch knows no memory that is read-only: it is the worker's own
    assert theirs["part"][0] == theirs["tagged"][10] == -1.0
    assert whole[10] == loaded(parcel)["whole"][10] == 10.0


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor", "ignore:TypedStorage")
def test_other_tensors_and_storages() -> None:
    whole = floats()
    mine = {
        "module": torch.nn.Linear(200, 200),
        "sparse": whole.view(200, 200).to_sparse(),
        "quantized": torch.quantize_per_tensor(whole.repeat(2), 0.1, 0, torch.quint8),
        "float8": whole.to(torch.float8_e4m3fn).repeat(2),
        "small": torch.ones(3),
        "none": torch.zeros(2, 0),
        "untyped": whole.untyped_storage(),
        "typed": whole.storage(),
        "array": whole.numpy(),
        "not a leaf": whole.clone().requires_grad_() * 2,
        "meta": torch.empty(3, device="meta"),
    }
    parcel = Parcel(Pickled(mine))
    assert len(parcel.pickle) < 20_000
    assert parcel.compare(Pickled(mine)).is_same
    theirs = loaded(parcel)
    assert torch.equal(theirs["module"].weight, mine["module"].weight)
    assert torch.equal(theirs["sparse"].to_dense(), whole.view(200, 200))
    assert torch.equal(theirs["quantized"].dequantize(), mine["quantized"].dequantize())
    assert torch.equal(theirs["float8"].float(), mine["float8"].float())
    assert torch.equal(theirs["small"], torch.ones(3))
    assert theirs["none"].shape == (2, 0)
    assert theirs["untyped"].nbytes() == theirs["typed"].nbytes() == 4 * LENGTH
    assert theirs["typed"].dtype is torch.float32
    assert theirs["not a leaf"].requires_grad
    assert torch.equal(theirs["not a leaf"], mine["not a leaf"])
    assert theirs["meta"].device.type == "meta"
    assert np.array_equal(theirs["array"], mine["array"])
    assert not theirs["array"].flags.writeable  # beside tensors, too


def test_actors_have_copies_that_they_may_write_to() -> None:
    """What lies in the object store of a Ray cluster, all actors of a node see."""
    whole, array = floats(), np.arange(2_000_000.0)
    parcel = Parcel(Pickled({"whole": whole, "array": array}))
    pieces = [np.array(np.frombuffer(piece.bytes, np.uint8)) for piece in parcel.pieces]
    message = parcel.message()
    theirs = replica.made_of(message, [*map(_mapped, pieces, message.private)])
    theirs["whole"][3] = -1.0
    again = replica.made_of(message, [*map(_mapped, pieces, message.private)])
    assert torch.equal(again["whole"], whole)
    assert theirs["whole"].data_ptr() % 64 == 0
    assert any(np.shares_memory(theirs["array"], piece) for piece in pieces)  # no tensor lies there


def test_many_views_send_their_memory_once() -> None:
    whole = floats(1_000_000).view(1000, 1000)
    for rows in (list(whole), list(whole.unbind(1)), [*whole.split(7), whole]):
        parcel = Parcel(Pickled(rows))
        assert sum(piece.nbytes for piece in parcel.pieces) < 1.1 * whole.nbytes
        for theirs, mine in zip(loaded(parcel), rows, strict=True):
            assert torch.equal(theirs, mine)


def test_of_a_large_storage_only_the_part_that_is_used_is_sent() -> None:
    whole = floats(1_000_000)
    for views in ([whole[100_001:200_000], whole[150_000:250_000]], [whole[7:9], whole[100:200]]):
        parcel = Parcel(Pickled(views))
        assert sum(piece.nbytes for piece in parcel.pieces) < 700_000
        assert parcel.compare(Pickled(views)).is_same
        theirs = loaded(parcel)
        assert all(map(torch.equal, theirs, views))
        assert theirs[0].untyped_storage().data_ptr() == theirs[1].untyped_storage().data_ptr()
        storage = whole.untyped_storage()
        views_and_storage = loaded(Parcel(Pickled([*views, storage])))
        assert views_and_storage[2].nbytes() == storage.nbytes()
        assert all(map(torch.equal, views_and_storage[:2], views))


def test_the_watch_knows_a_tensor_again_and_what_torch_writes() -> None:
    held = {"x": floats(), "small": torch.ones(3), "views": list(floats().split(100)), "array": floats().numpy()}
    watch = ChangeDetector()

    def is_seen() -> bool:
        found = watch.has_changed(held, False)
        watch.commit()
        return found

    assert is_seen()
    assert not is_seen()
    for change in (
        lambda: held["x"].add_(1),  # type: ignore[attr-defined]
        lambda: held["x"][5:7].zero_(),  # noqa: PLW0108  # it may be another tensor by now
        lambda: held["small"].numpy().fill(3),  # type: ignore[attr-defined]
        lambda: held["views"][3].mul_(2),
        lambda: held.update(x=held["x"].clone()),  # type: ignore[attr-defined]
        lambda: held.update(x=held["x"][1:]),
    ):
        change()
        assert is_seen()
        assert not is_seen()


@pytest.mark.parametrize("name", ["float32", "int64", "bool", "complex64", "uint16", "bfloat16", "float8_e4m3fn"])
@pytest.mark.parametrize("kind", ["tf", "jax"])
def test_tensors_of_tensorflow_and_jax(kind: str, name: str) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = (np.arange(200_000).reshape(500, 400) % 100).astype(getattr(ml_dtypes, name, name))
    mine: Any
    if kind == "tf":
        tf = pytest.importorskip("tensorflow")
        mine, known = tf.constant(array), tf.Tensor
    else:
        jax = pytest.importorskip("jax")
        mine, known = jax.numpy.array(array), jax.Array
    held = {"x": mine, "again": [mine], "small": mine[:1, :2]}
    parcel = Parcel(Pickled(held))
    if (kind, name) != ("tf", "float8_e4m3fn"):  # which TensorFlow makes only of a copy
        assert len(parcel.pickle) < 4_000
        assert sum(piece.nbytes for piece in parcel.pieces) < 4_000 + np.asarray(mine).nbytes
    theirs = loaded(parcel)
    assert theirs["again"][0] is theirs["x"]
    for each, of in ((theirs["x"], mine), (theirs["small"], held["small"])):
        assert isinstance(each, known)
        assert each.dtype == of.dtype
        assert np.array_equal(np.asarray(each), np.asarray(of))
    watch = ChangeDetector()
    watch.has_changed(held, False)
    watch.commit()
    assert not watch.has_changed(held, False)
