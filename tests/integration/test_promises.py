"""Promises that need real processes: no copies, no leaks, bounds, starts from anywhere."""

from __future__ import annotations

import dataclasses
import gc
import logging
import os
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import workers
from sampler import MultiShotMemorySampler, SingleShotMemorySampler
from workers import Sequence, SequenceArray, SequenceMap, prefetch
from workers.batch import share

ROOT = Path(__file__).resolve().parents[2]


class Large(Sequence):
    def __init__(self, data: Any = None) -> None:
        super().__init__(seed=1)
        self.nested = {"data": [data]}

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Any:
        data = self.nested["data"][0]
        if data is None:
            array = workers.empty((256, 1024), np.float32)
            array[...] = index
            return array, index
        return float(data[index].sum()), data.flags.writeable


def test_batches_are_views_of_shared_memory() -> None:
    """Writable, not copied, and valid after close()."""
    with Large().prefetch(nb_workers=2) as batches:
        held = list(batches)
        assert all(not x.flags.owndata and x.flags.writeable and type(x) is np.ndarray for x, _ in held)
    held[0][0][:] = -1
    assert all((x == y).all() for x, y in held[1:])


@pytest.mark.own_server
def test_one_copy_of_the_data() -> None:
    """100 MB in the Sequence, 3 workers: in shared memory once, in nobody's private memory."""
    data = np.ones((100, 250_000), np.float32)
    with Large(data).prefetch(nb_workers=3) as batches:
        assert list(batches) == [(250_000.0, False)] * 40
        (server,) = psutil.Process().children()
        private = [worker.memory_full_info().uss for worker in server.children()]
        assert len(private) == 3
        assert max(private) < 40e6
        maps = {m.path: m.size for worker in server.children() for m in worker.memory_maps() if m.size > 9e7}
        assert len(maps) == 1


def large_mappings() -> set[tuple[str, str]]:
    """(inode, path) of shared memory of over 90 MB that the workers have mapped. (TensorFlow's library is as large.)"""
    found = set()
    for worker in [worker for server in psutil.Process().children() for worker in server.children()]:
        for line in Path(f"/proc/{worker.pid}/maps").read_text().splitlines():
            span, _, _, _, inode, *path = line.split(maxsplit=5)
            start, stop = (int(part, 16) for part in span.split("-"))
            if stop - start > 90e6 and path and "memfd" in path[0]:
                found.add((inode, *path))
    return found


def shared_nbytes() -> int:
    gc.collect()
    return sum(piece.nbytes for piece in {*share._shared.values(), *share._copies.values()})


def numbers() -> Any:
    return np.arange(25_000_000, dtype=np.float32).reshape(100_000, 250)


MAKERS: dict[str, Any] = {
    "SingleShot": lambda x: SingleShotMemorySampler(x, None, class_per_batch=4, steps_per_epoch=10, seed=1),
    "MultiShot": lambda x: MultiShotMemorySampler(x, np.arange(len(x)) % 5, 2, steps_per_epoch=10, seed=1),
    "SequenceArray": lambda x: SequenceArray({"x": x}, seed=1).batch(1000).subsample(50_000).shuffle(),
    "a map of a map": lambda x: SingleShotMemorySampler(x, None, 4, 10, seed=1).map(lambda b: b).map(lambda b: b),
}


@pytest.mark.parametrize("make", MAKERS)
def test_a_sampler_holds_its_data_once(make: str) -> None:
    """In shared memory, for all front-ends; the array that it was given is let go. It stays the sampler's, and goes
    with that."""
    x = numbers()
    given = weakref.ref(x)
    seq = MAKERS[make](x)
    expected = [batch for batch, _ in zip(iter(MAKERS[make](x)), range(3), strict=False)]
    before = shared_nbytes()
    del x
    with seq.prefetch(1) as one, seq.prefetch(2) as other:
        assert make == "SequenceArray" or given() is None
        for batches in (one, other):
            for batch, first in zip(batches, expected, strict=False):
                compared = zip(
                    *(each.values() if isinstance(each, dict) else each for each in (batch, first)), strict=True
                )
                assert all(np.array_equal(mine, theirs) for mine, theirs in compared)
        if make != "SequenceArray":  # of which there is a part
            assert len(large_mappings()) == 1
            assert shared_nbytes() - before < 102e6
    del one, other, batches, seq, batch
    assert shared_nbytes() == before


def test_two_front_ends_share_what_a_sequence_holds() -> None:
    """Though it is an array of the user's, not in shared memory itself. The copy goes with the last of them."""
    before = shared_nbytes()
    seq = Large(np.ones((100, 250_000), np.float32))
    with seq.prefetch(1) as one, seq.prefetch(1) as other:
        assert list(one) == list(other) == [(250_000.0, False)] * 40
        assert len(large_mappings()) == 1
        one.close()
        assert shared_nbytes() - before == 100_000_000
    assert shared_nbytes() == before


def test_a_shared_array() -> None:
    """Two sequences of one array: no copy is made, and the workers see what is written to it."""
    data = workers.share(np.ones((100, 250_000), np.float32))
    before = shared_nbytes()
    with Large(data).prefetch(1) as one, Large(data[::-1, ::2]).prefetch(1) as other:
        assert list(one) == [(250_000.0, False)] * 40
        assert list(other) == [(125_000.0, False)] * 40
        assert len(large_mappings()) == 1
        assert shared_nbytes() == before
        data[...] = 2
        list(one), list(other)  # of which some was computed before
        assert list(one) == [(500_000.0, False)] * 40
        assert list(other) == [(250_000.0, False)] * 40


def test_many_paths() -> None:
    """A list of them is held as two arrays; the loader gets each as it was."""
    paths = [f"/data/{number}.jpeg" for number in range(50_000)]
    seq, other = (
        SingleShotMemorySampler(paths, None, 4, 10, load_example_fn=lambda path: np.array([path]), seed=1)
        for _ in range(2)
    )
    by_hand = list(other)
    with seq.prefetch(2) as batches:
        for (x, y), (of_hand, _) in zip(batches, by_hand, strict=True):
            assert x.tolist() == of_hand.tolist() == [[paths[at]] for at in y]
    samples = SequenceArray({"path": paths, "label": np.arange(len(paths))}, sampler=[7, 3, 49_999])
    with samples.batch(2).prefetch(1) as batches:
        for batch in batches:
            assert batch["path"].tolist() == [paths[at] for at in batch["label"]]
            assert batch["path"].dtype == np.array(paths).dtype
    assert samples.subsample_uids(["/data/5.jpeg"], "path")[0]["label"] == 5
    assert samples[1]["path"] == "/data/3.jpeg"


def test_a_memmap_is_opened_again(tmp_path: Path) -> None:
    """By its file, also where the Sequence holds a slice or a plain view of it."""
    np.arange(400_000.0).reshape(40, 10_000).tofile(tmp_path / "data")
    data = np.memmap(tmp_path / "data", np.float64, "r", shape=(40, 10_000))
    for part in (data, data[:], np.asarray(data)[:40]):
        with Large(part).prefetch(nb_workers=2) as batches:
            assert [total for total, _ in batches] == [float(row.sum()) for row in data]
            paths = {m.path for s in psutil.Process().children() for w in s.children() for m in w.memory_maps()}
            assert str(tmp_path / "data") in paths


@pytest.mark.parametrize("options", [{}, {"in_order": False}, {"max_queue_size": 3}], ids=str)
@pytest.mark.parametrize("nbytes", [4 << 10, 64 << 10, 1 << 20, 16 << 20])
def test_no_segment_is_made_in_the_steady_state(nbytes: int, options: dict[str, Any]) -> None:
    """Over 1,000 batches (fewer of large ones), with some of them held. How many are needed is known once each worker
    has been ahead of the other as far as it may."""
    made: list[int] = []
    number = min(1000, (4 << 30) // nbytes)

    def batch(index: int) -> Any:
        array = workers.empty(nbytes // 8, np.int64) if index % 2 else np.empty(nbytes // 8, np.int64)
        array[:: 1 + nbytes // 64] = index
        return array

    with SequenceMap(range(100 * number), 2, batch, **options) as batches:
        loop, held = iter(batches), deque[Any](maxlen=5)
        counts = batches._live.pool.engine.figures  # type: ignore[union-attr]
        while len(made) < 4 or made[-1] != made[-2]:
            assert len(made) < 100
            for _ in range(number):
                held.append(next(loop))
            made.append(counts.segments_made)
        assert made[-1] <= 2 * (1024 + 8)  # at most what one worker may be ahead, for each
        if nbytes > 32 << 10:
            assert counts.segments_made > 0


def test_the_bound() -> None:
    """No job starts more than max_queue_size ahead of the consumer."""
    for bound in (1, 3):

        def note(index: int) -> float:
            return time.monotonic()

        with SequenceMap(list(range(30)), 2, note, max_queue_size=bound) as batches:
            loop, asked, begun = iter(batches), [], []
            for _ in range(30):
                asked.append(time.monotonic())
                begun.append(next(loop))
                time.sleep(0.005)  # leaves time to break the promise
            # The job of batch at + bound may begin only when batch at is taken.
            assert all(begun[at + bound] > asked[at] for at in range(30 - bound))


def read_for_long(nb_workers: int) -> None:
    process = psutil.Process()

    def count() -> tuple[int, int, int]:
        return process.num_fds(), process.num_threads(), len(process.children(recursive=True))

    with Large().prefetch(nb_workers=nb_workers, max_queue_size=4) as batches:
        for epoch in range(150):
            for _ in batches:
                pass
            if epoch == 20:
                before, memory = count(), process.memory_info().rss
        assert count() == before, f"{count()}, not {before}"
        assert process.memory_info().rss < memory + 30e6


@pytest.mark.parametrize("nb_workers", [1, 2])
def test_nothing_grows(nb_workers: int) -> None:
    """Descriptors, threads, mappings and processes after 20 epochs and after 150 are the same.

    In a process of its own: in this one, threads that other tests have left to TensorFlow end when they like.
    """
    path = [str(Path(__file__).parent), *sys.path]
    code = f"import sys; sys.path[:] = {path}; import test_promises; test_promises.read_for_long({nb_workers})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr


@pytest.mark.needs("tensorflow")
def test_workers_do_not_load_tensorflow() -> None:
    """Though the consumer has, and the sampler is one of ours."""
    import tensorflow as tf  # noqa: F401

    def augment(x: Any, y: Any, num: int, is_warmup: bool) -> Any:
        from scipy import ndimage

        names = sorted({"tensorflow", "keras"} & set(sys.modules))
        return ndimage.gaussian_filter(x, 1), names

    sampler = SingleShotMemorySampler(np.zeros((50, 8, 8)), augment, class_per_batch=4, steps_per_epoch=6)
    with sampler.prefetch(nb_workers=2) as batches:
        assert [names for _, names in batches] == [[]] * 6


def test_imports() -> None:
    """Neither package loads TensorFlow."""
    names = {"tensorflow", "keras", "psutil", "lightning", "prometheus_client"}
    code = f"import sys, workers, sampler; print(sorted({names} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_the_seed_is_drawn_once_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "workers")

    class Plain(Large):
        def __init__(self) -> None:
            pass

        def __getitem__(self, index: int) -> Any:
            return float(workers.current_rng().random())

    sequence = Plain()
    with sequence.prefetch(nb_workers=2) as batches:
        first = list(batches)
    assert str(sequence.seed) in caplog.text
    again = Plain()
    again.__dict__["_sequence_seed"] = sequence.seed
    assert list(again) == first


SCRIPT = """
import dataclasses
import numpy as np
from workers import Sequence, prefetch

print("once")

@dataclasses.dataclass
class Batch:
    image: np.ndarray
    label: int

class Own(Exception):
    pass

class Images(Sequence):
    def __len__(self):
        return 6
    def __getitem__(self, index):
        if index == 5:
            raise Own(index)
        return Batch(np.full(20_000, index), index)

factor = 3
try:
    for batch in prefetch(Images(seed=1), 2).map(lambda batch: Batch(batch.image * factor, batch.label)):
        assert type(batch) is Batch and (batch.image == 3 * batch.label).all()
except Own as error:
    print("own", error.args)
"""


@pytest.mark.parametrize("how", ["file", "stdin", "-c", "other folder"])
def test_starts_from_anywhere(how: str, tmp_path: Path) -> None:
    """No __main__ guard; classes, exceptions and closures of __main__, whose code runs once."""
    (tmp_path / "script.py").write_text(SCRIPT)
    command = {"stdin": ["-"], "-c": ["-c", SCRIPT]}.get(how, [str(tmp_path / "script.py")])
    done = subprocess.run(
        [sys.executable, *command],
        input=SCRIPT if how == "stdin" else "",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=ROOT if how != "other folder" else "/",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.split("\n")[:2] == ["once", "own (5,)"], done.stderr
    assert done.stderr == ""


def test_starts_from_a_thread() -> None:
    """And goes on when that thread has ended."""
    made: list[Any] = []
    thread = threading.Thread(target=lambda: made.append(prefetch(list(range(100)), 2)))
    thread.start()
    thread.join()
    with made[0] as batches:
        assert list(batches) == list(range(100))


@dataclasses.dataclass
class Odd:
    value: Any


def test_any_kind_of_batch() -> None:
    """Through real processes: objects, text, structures, numbers of half the size, nothing at all."""
    import ml_dtypes

    kinds = [
        np.array(["a", "bc"]),
        np.array([{1: 2}, None], object),
        np.zeros(3, [("a", "i4"), ("b", "f8")]),
        np.ones(40_000, ml_dtypes.bfloat16),
        np.zeros((0, 4)),
        np.asfortranarray(np.random.default_rng(0).random((300, 300))),
        Odd({"deep": [np.arange(3), (None, "text", b"bytes", 1.5)]}),
        None,
        np.ma.masked_array([1, 2], [True, False]),
    ]
    with prefetch(kinds, 2) as batches:
        got = list(batches)
    for one, other in zip(kinds, got, strict=True):
        assert type(one) is type(other)
        assert repr(one) == repr(other)
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype
            assert one.flags.f_contiguous == other.flags.f_contiguous
