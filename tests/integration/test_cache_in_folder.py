"""``.cache(folder)``: found by later runs and other programs, as long as what is cached is the same."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cached import NUMBER, Load, noisy, numbers
from shapes import exactly

import workers
from sampler import MultiShotFileSampler, MultiShotMemorySampler
from workers import SequenceArray, cache_info, clear_cache

PROGRAM = """
import sys
import numpy as np
from workers import SequenceArray

SIZE = {size}

def helper(number):
    return np.full(SIZE, number, np.uint8){change}

class Loader:
    size = SIZE

    def __init__(self, offset):
        self.offset = offset

    def __call__(self, row):
        return {{"x": helper(row["i"] + self.offset), "kept": {{3, "a", None}}}}

if __name__ == "__main__":
    numbers = SequenceArray({{"i": np.arange({number})}})
    with numbers.map(Loader({offset})).cache(sys.argv[1]).batch(5).prefetch({nb_workers}) as batches:
        total = sum(int(batch["x"].sum()) for batch in batches)
        print(total, batches.report().cache.hits, batches.report().cache.misses)
"""


def run(tmp_path: Path, **changes: Any) -> list[int]:
    """What the program prints: the total, hits and misses."""
    program = tmp_path / "program.py"
    values = {"size": 1000, "change": "", "number": NUMBER, "offset": 0, "nb_workers": 2, **changes}
    program.write_text(PROGRAM.format(**values))
    found = subprocess.run(
        [sys.executable, str(program), str(tmp_path / "kept")], capture_output=True, text=True, check=True, timeout=100
    )
    return list(map(int, found.stdout.split()))


def test_later_runs_find_what_is_the_same(tmp_path: Path) -> None:
    total, hits, misses = run(tmp_path)
    assert hits + misses == NUMBER  # a batch that was moved to another worker may be made by both
    assert misses
    assert run(tmp_path) == [total, NUMBER, 0]
    assert run(tmp_path, nb_workers=0) == [total, NUMBER, 0]
    changes: list[dict[str, Any]] = [
        {"size": 2000},
        {"change": " + np.uint8(1)"},
        {"offset": 1},
        {"number": NUMBER + 1},
    ]
    for change in changes:
        found, hits, misses = run(tmp_path, **change)
        assert found != total
        assert misses
    assert run(tmp_path) == [total, NUMBER, 0]
    assert len(cache_info(tmp_path / "kept")) == 1 + len(changes)


def test_several_programs_at_once(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        PROGRAM.format(size=1000, change="", number=400, offset=0, nb_workers=1).replace(
            "    return {", "    import time; time.sleep(0.002); return {"
        )
    )
    started = [
        subprocess.Popen([sys.executable, str(tmp_path / "program.py"), str(tmp_path / "kept")], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    totals = {each.communicate(timeout=100)[0].split()[0] for each in started}
    assert len(totals) == 1
    (info,) = cache_info(tmp_path / "kept")
    assert info.num_items == 400
    assert info.functions == ["Loader"]


def items(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.items"))


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def without_content(content: bytes) -> bytes:
    return b""


def one_bit_off(content: bytes) -> bytes:
    at = content.index(b"numpy")
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def of_zeros(content: bytes) -> bytes:
    return bytes(len(content))


def of_another(content: bytes) -> bytes:
    return content[:8] + (int.from_bytes(content[8:16], "little") + 1).to_bytes(8, "little") + content[16:]


@pytest.mark.parametrize("damage", [truncated, without_content, one_bit_off, of_zeros, of_another])
@pytest.mark.parametrize("nb_workers", [0, 1])
def test_damaged_files_are_replaced(
    damage: Callable[[bytes], bytes], nb_workers: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, load = tmp_path / "kept", Load(tmp_path / "calls")
    with numbers().map(load).cache(folder).prefetch(nb_workers) as batches:
        wanted = list(batches)
    content = items(folder)[3].read_bytes()
    items(folder)[3].write_bytes(damage(content))
    with numbers().map(load).cache(folder).prefetch(nb_workers) as batches:
        assert exactly(list(batches)) == exactly(wanted)
        assert batches.report().cache.misses == 1
    assert items(folder)[3].read_bytes() == content
    assert load.calls() == sorted([*range(NUMBER), 3])


def test_unfinished_files_are_deleted_when_they_are_old(tmp_path: Path) -> None:
    folder, load = tmp_path / "kept", Load(tmp_path / "calls")
    list(numbers().map(load).cache(folder))
    (new := items(folder)[0].with_suffix(".items.1.part")).touch()
    (old := items(folder)[0].with_suffix(".items.2.part")).touch()
    os.utime(old, (time.time() - 10_000,) * 2)
    numbers().map(load).cache(folder)
    assert new.exists()
    assert not old.exists()


def test_clear_deletes_caches_and_nothing_else(tmp_path: Path) -> None:
    folder, load = tmp_path / "kept", Load(tmp_path / "calls")
    cached = numbers().map(load).cache(folder)
    list(cached)
    list(numbers().map(dict).cache(folder, name="by-name"))
    (folder / "notes.txt").touch()
    names = {info.name for info in cache_info(folder)}
    assert len(names) == 2
    clear_cache(folder, "by-name")
    assert {info.name for info in cache_info(folder)} == names - {"by-name"}
    with pytest.raises(FileNotFoundError, match="by-name"):
        clear_cache(folder, "by-name")
    clear_cache(folder)
    assert os.listdir(folder) == ["notes.txt"]
    assert len(list(cached)) == NUMBER  # made again, and kept
    assert [info.num_items for info in cache_info(folder)] == [NUMBER]
    for function in (cache_info, clear_cache):
        with pytest.raises(FileNotFoundError):
            function(tmp_path / "nowhere")


def test_a_full_disk_does_not_stop_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from workers.cache import in_folder

    folder, load = tmp_path / "kept", Load(tmp_path / "calls")
    cached = numbers().map(load).cache(folder)

    def replace(*paths: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(in_folder.os, "replace", replace)
    assert len(list(cached)) == NUMBER
    assert not items(folder)
    assert not list(folder.rglob("*.part"))
    assert caplog.text.count("no more items are kept") == 1


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file") as raised:
        numbers().cache(tmp_path / "file")
    assert any(".cache(" in note for note in raised.value.__notes__)


def test_a_source_without_a_fingerprint_needs_a_name(tmp_path: Path) -> None:
    opened = open(os.devnull)  # noqa: SIM115

    def load(row: Any) -> Any:
        return opened.read(), row["i"]

    with pytest.raises(TypeError, match="name="):
        numbers().map(load).cache(tmp_path)
    cached = numbers().map(load).cache(tmp_path, name="opened")
    assert list(cached) == list(cached)
    assert [info.name for info in cache_info(tmp_path)] == ["opened"]
    opened.close()


def test_fingerprints_do_not_depend_on_seeds_or_orders(tmp_path: Path) -> None:
    load = Load(tmp_path / "calls")
    for made in (numbers(), SequenceArray({"i": np.arange(NUMBER)}), numbers(sampler=np.random.permutation).shuffle()):
        list(made.map(load).cache(tmp_path / "kept"))
    list(numbers().weighted([1] * NUMBER, num_samples=100).map(load).cache(tmp_path / "kept"))
    assert load.calls() == list(range(NUMBER))


# -- samplers


def load_number(number: Any) -> Any:
    return np.full(10, number, np.float32)


@pytest.mark.parametrize("nb_workers", [0, 2])
@pytest.mark.parametrize("where", ["memory", "folder"])
def test_samplers_keep_what_they_load(nb_workers: int, where: str, tmp_path: Path) -> None:
    cache: Any = True if where == "memory" else tmp_path / "kept"
    labels = np.arange(30) // 5

    def made(cache: Any) -> Any:
        return MultiShotMemorySampler(
            list(range(30)), labels, 3, 2, 8, augmenter=augment, load_example_fn=load_number, cache=cache, seed=1
        )

    plain = made(False)
    with made(cache).prefetch(nb_workers) as batches:
        for _ in range(3):
            assert exactly(list(batches)) == exactly(list(plain))
        cached = batches.report().cache
    assert cached.hits + cached.misses == 3 * 8 * 6
    assert cached.num_items == 30
    files = MultiShotFileSampler(list(range(30)), labels, load_number, 3, 2, 8, cache=cache, seed=1)
    assert exactly(files[0]) == exactly(MultiShotFileSampler(list(range(30)), labels, load_number, 3, 2, 8, seed=1)[0])


def augment(x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> Any:
    x += workers.current_rng().random(x.shape, np.float32)
    return x, y


def draws(number: Any) -> Any:
    return np.full(10, np.random.random())


def test_samplers_refuse_to_keep_draws() -> None:
    made = MultiShotMemorySampler(list(range(30)), np.arange(30) // 5, load_example_fn=draws, cache=True)
    with pytest.raises(workers.CacheError, match="draws"):
        made[0]


def test_a_state_does_not_show_the_cache(tmp_path: Path) -> None:
    load = Load(tmp_path / "calls")
    plain, cached = numbers().shuffle().map(load).map(noisy).batch(4), None
    cached = numbers().shuffle().map(load).cache().map(noisy).batch(4)
    iterator = iter(plain)
    next(iterator)
    state = plain.state_dict()
    cached.load_state_dict(state)
    assert cached.state_dict() == state
    assert exactly(list(cached)) == exactly(list(iterator))


@pytest.mark.needs("keras")
def test_fit_reads_through_a_cache(tmp_path: Path) -> None:
    import keras

    def load(row: Any) -> Any:
        return np.full(4, row["i"], np.float32), np.float32(row["i"])

    losses = []
    for is_cached in (False, True):
        keras.utils.set_random_seed(1)  # also for the order that fit draws
        model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1, kernel_initializer="zeros")])
        model.compile(keras.optimizers.SGD(1e-3), "mse")
        samples = numbers().map(load)
        batches = (samples.cache() if is_cached else samples).batch(6)
        losses.append(model.fit(batches, epochs=3, verbose=0).history["loss"])
        if is_cached:
            assert batches.report().cache.hits >= 2 * NUMBER
        batches.close()
    assert losses[0] == losses[1]
