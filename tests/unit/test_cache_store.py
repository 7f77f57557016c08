"""The stores of a cache: claims, what fits, other processes, and files of closed descriptors."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workers.cache import in_memory
from workers.cache.fingerprint import NoFingerprintError, fingerprint
from workers.cache.in_memory import MemoryStore
from workers.cache.items import checked_nbytes
from workers.cache.packed import PackedError, pack, unpack


def test_items_come_back() -> None:
    items = [np.arange(12).reshape(3, 4).T, "text", {"a": np.zeros((0, 2))}, [np.arange(5, dtype=">i2")]]
    packed = pack(7, items, True)
    memory = memoryview(b"".join(bytes(part) for part in packed.parts))
    assert memory.nbytes == packed.nbytes
    found = unpack(7, memory, True)
    assert repr(found) == repr(items)
    assert found[0].flags.f_contiguous
    assert not found[0].flags.writeable
    with pytest.raises(PackedError, match="key 8"):
        unpack(8, memory)
    with pytest.raises(PackedError, match="of"):
        unpack(7, memory[:-1])


def test_arrays_are_aligned() -> None:
    store = MemoryStore(4, 1 << 20)
    for key, length in enumerate((1, 3, 1000, 7)):
        assert store.put(key, [np.ones(length, np.uint8), np.ones(length)])
        for array in store.get(key) or []:
            assert array.__array_interface__["data"][0] % 64 == 0
    assert store.num_items == 4
    assert store.get(4) is None
    assert not store.put(4, [1])


def test_threads_get_space_of_their_own() -> None:
    store = MemoryStore(400, 8 << 20)
    start = threading.Barrier(8)

    def fill(first: int) -> None:
        start.wait()
        for key in range(first, 400, 8):
            store.put(key, [np.full(1000, key)])

    threads = [threading.Thread(target=fill, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for key in range(400):
        (found,) = store.get(key) or [None]
        assert (found == key).all()


FILL = """
import pickle, sys
import numpy as np
store = pickle.loads(bytes.fromhex(sys.argv[1]))
for key in range(int(sys.argv[2]), 300, 3):
    store.put(key, [np.full(2000, key)])
print(store.num_items)
"""


def test_processes_get_space_of_their_own() -> None:
    store = MemoryStore(300, 8 << 20)
    sent = pickle.dumps(store).hex()
    started = [
        subprocess.Popen([sys.executable, "-c", FILL, sent, str(first)], stdout=subprocess.PIPE) for first in range(3)
    ]
    for each in started:
        each.communicate(timeout=100)
        assert each.returncode == 0
    assert store.num_items == 300
    for key in range(300):
        (found,) = store.get(key) or [None]
        assert (found == key).all()
    assert store.nbytes < 300 * (16_000 + 400)


def test_a_full_store_keeps_what_it_has() -> None:
    store = MemoryStore(100, 100_000)
    kept = [key for key in range(100) if store.put(key, [np.full(1000, key)])]
    assert kept == list(range(len(kept)))
    assert 10 <= len(kept) <= 12
    assert store.nbytes <= 100_000
    assert store.put(50, [1])  # what is smaller still fits
    assert all((store.get(key) or [None])[0][0] == key for key in kept)


def test_numbers_of_closed_descriptors_are_not_taken_for_the_store() -> None:
    store = MemoryStore(4, 1 << 16)
    sent = pickle.dumps(store)
    store.close()
    others = [os.memfd_create("other") for _ in range(8)]  # get the same numbers
    assert pickle.loads(sent) is None
    for each in others:
        os.close(each)


def test_workers_of_another_machine_share_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_memory, "is_in_worker_process", lambda: True)
    arguments: Any = (2**30, 3, 4, os.urandom(16), 8, 1 << 16)
    first = in_memory._opened(*arguments)
    assert first is not None
    first.put(3, ["text"])
    second = in_memory._opened(*arguments)
    assert second is not None
    assert second.get(3) == ["text"]
    assert second._file != first._file
    monkeypatch.setattr(in_memory, "is_in_worker_process", lambda: False)
    assert in_memory._opened(2**30, 3, 4, os.urandom(16), 8, 1 << 16) is None


def test_sizes() -> None:
    for given, nbytes in (
        (1000, 1000),
        ("1000", 1000),
        ("8GB", 8_000_000_000),
        ("1.5 kB", 1500),
        ("512MiB", 512 << 20),
        ("2 TiB", 2 << 40),
        (None, None),
    ):
        assert checked_nbytes(given) == nbytes


class Settings:
    def __init__(self, **settings: Any) -> None:
        vars(self).update(settings)


def made(factor: int) -> Any:
    def scale(value: int, by: int = 3) -> int:
        return value * factor * by

    return scale


def test_fingerprints() -> None:
    different: list[Any] = [
        1,
        1.0,
        True,
        "1",
        b"1",
        None,
        [1],
        (1,),
        {1},
        {1: 2},
        {1: 3},
        np.arange(3),
        np.arange(3.0),
        np.arange(3).reshape(1, 3),
        Settings(a=1),
        Settings(a=2),
        Path("a"),
        len,
        made(2),
        made(3),
        np.random.default_rng,
        int.bit_length,
        (5).bit_length,
        np.array([None, 1], object),
        lambda value: value + 1,
        lambda value: value + 2,
    ]
    found = [fingerprint(each) for each in different]
    assert len(set(found)) == len(found)
    assert found == [fingerprint(each) for each in different]
    assert fingerprint(made(2)) == fingerprint(made(2))
    assert fingerprint({"b", "a", "c"}) == fingerprint({"c", "b", "a"})
    circle: list[Any] = [1]
    circle.append(circle)
    assert fingerprint(circle) == fingerprint(circle)
    with pytest.raises(NoFingerprintError, match="name="):
        fingerprint([threading.Lock()])


def of_source(source: str) -> Any:
    """What a script that consists of ``source`` calls ``f``."""
    known: dict[str, Any] = {"__name__": "__main__", "np": np}
    exec("import dataclasses, enum, functools\n" + source, known)
    return known["f"]


def of_module(scale: int) -> Any:
    module = types.ModuleType("of_the_user")
    exec(f"SCALE = {scale}", vars(module))
    sys.modules["of_the_user"] = module
    return of_source("import of_the_user\ndef f(x): return x * of_the_user.SCALE")


CHANGES = [
    ("def f(r): return sum(x['a'] for x in r)", "def f(r): return sum(x['b'] for x in r)"),
    ("class f:\n  facter = 3", "class f:\n  factor = 3"),
    ("class f:\n  def lod(self): return 1", "class f:\n  def load(self): return 1"),
    ("class f:\n  @staticmethod\n  def g(s): return 1", "class f:\n  @classmethod\n  def g(s): return 1"),
    ("def f(r): return r * f.k\nf.k = 1", "def f(r): return r * f.k\nf.k = 2"),
    ("def g(x): return 1\ndef f(x): return g(x)", "def g(x): return 2\ndef f(x): return g(x)"),
    ("def f(x, by=1): return x", "def f(x, by=2): return x"),
    ("def f(x, *, by=1): return x", "def f(x, *, by=2): return x"),
    ("f = functools.partial(max, 1)", "f = functools.partial(max, 2)"),
    ("@functools.wraps(np.clip)\ndef f(x): return x + 1", "@functools.wraps(np.clip)\ndef f(x): return x + 2"),
    ("@functools.lru_cache\ndef f(x): return x + 1", "@functools.lru_cache\ndef f(x): return x + 2"),
    (
        "@functools.singledispatch\ndef f(x): return 1\n@f.register\ndef _(x: int): return 2",
        "@functools.singledispatch\ndef f(x): return 1\n@f.register\ndef _(x: int): return 3",
    ),
    (
        "class E(enum.Enum):\n  A = 1\n  def g(self): return 1\nf = E.A",
        "class E(enum.Enum):\n  A = 1\n  def g(self): return 2\nf = E.A",
    ),
    (
        "@dataclasses.dataclass\nclass D:\n  x: int = 1\ndef f(r): return D(r)",
        "@dataclasses.dataclass\nclass D:\n  x: int = 2\ndef f(r): return D(r)",
    ),
]


@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_changes_of_a_script_change_the_fingerprint(before: str, after: str) -> None:
    assert fingerprint(of_source(before)) != fingerprint(of_source(after))
    assert fingerprint(of_source(before)) == fingerprint(of_source(before))


def test_changes_of_a_module_and_of_comments() -> None:
    assert fingerprint(of_module(1)) != fingerprint(of_module(2))
    assert fingerprint(of_module(1)) == fingerprint(of_module(1))
    del sys.modules["of_the_user"]
    one, other = "def f(x):\n  'one'\n  return x", "def f(x):\n  'other'  # comment\n  return x"
    assert fingerprint(of_source(one)) == fingerprint(of_source(other))
