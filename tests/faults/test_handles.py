"""Files that are opened at first use, and a batch that is looked at by hand: what is open here stays here."""

from __future__ import annotations

import functools
import sqlite3
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from workers import NotPicklableError, Sequence

LENGTH = 12


class OfFile(Sequence):
    """Each batch is read from a file; ``scale`` is something else that changes."""

    handle: Any

    def __init__(self, path: Path) -> None:
        super().__init__(seed=1)
        self.path = str(path)
        self.scale = 1

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        return self.scale * self.read(index)

    def read(self, index: int) -> Any:
        raise NotImplementedError


class Hdf5(OfFile):
    """As one writes it: it was None before."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.handle = None

    def read(self, index: int) -> Any:
        if self.handle is None:
            self.handle = h5py.File(self.path, "r")
        return self.handle["x"][index]


class Absent(OfFile):
    """It was not there before."""

    @functools.cached_property
    def handle(self) -> Any:  # type: ignore[override]
        return h5py.File(self.path, "r")

    def read(self, index: int) -> Any:
        return self.handle["x"][index]


class Many(OfFile):
    """It is within what was an empty dict before."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.handle = {}

    def read(self, index: int) -> Any:
        if self.path not in self.handle:
            self.handle[self.path] = h5py.File(self.path, "r")
        return self.handle[self.path]["x"][index]


class Reader:
    def __init__(self, path: str) -> None:
        self.path = path
        self.file: Any = None

    def read(self, index: int) -> Any:
        if self.file is None:
            self.file = h5py.File(self.path, "r")
        return self.file["x"][index]


class Within(OfFile):
    """It is an attribute of an object of its own."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.handle = Reader(self.path)

    def read(self, index: int) -> Any:
        return self.handle.read(index)


class Late(OfFile):
    """It is within an object that was not there before."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.handle = None

    def read(self, index: int) -> Any:
        if self.handle is None:
            self.handle = Reader(self.path)
        return self.handle.read(index)


class Sqlite(OfFile):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.handle = None

    def read(self, index: int) -> Any:
        if self.handle is None:
            self.handle = sqlite3.connect(self.path)
        return np.array(self.handle.execute("select x from t where i = ?", (index,)).fetchone()[0])


class Hdf5ByRecipe(Hdf5):
    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "handle": None}


class SqliteByRecipe(Sqlite):
    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "handle": None}


@pytest.fixture
def make(tmp_path: Path) -> Any:
    """Makes a sequence over a file of its kind."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = np.arange(LENGTH)
    with sqlite3.connect(tmp_path / "x.sqlite") as connection:
        connection.execute("create table t (i integer, x integer)")
        connection.executemany("insert into t values (?, ?)", [(i, i) for i in range(LENGTH)])
    connection.close()
    return lambda kind: kind(tmp_path / ("x.sqlite" if issubclass(kind, Sqlite) else "x.h5"))


KINDS = [Hdf5, Absent, Many, Within, Late, Sqlite]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_looked_at_between_two_epochs(make: Any, caplog: Any, kind: type[OfFile]) -> None:
    """The workers go on, with their own handles; what has changed besides reaches them. The log says it, once."""
    seq = make(kind)
    with seq.prefetch(nb_workers=2) as batches:
        assert [int(batch) for batch in batches] == list(range(LENGTH))
        assert int(seq[3]) == 3
        for scale in (1, 2, 3):
            seq.scale = scale
            if kind is Hdf5:  # closed, and opened again
                seq.handle = None
                assert [int(batch) for batch in batches] == [scale * i for i in range(LENGTH)]
                assert int(seq[3]) == 3 * scale
            assert [int(batch) for batch in batches] == [scale * i for i in range(LENGTH)]
            assert int(seq[3]) == 3 * scale
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 1
    name = "Reader.file" if kind is Within else f"{kind.__name__}.handle"
    assert name in told[0]
    assert "def __getstate__(self): return {**self.__dict__, " in told[0]


@pytest.mark.parametrize("kind", [Hdf5, Sqlite])
def test_what_is_closed_again_is_seen_again(make: Any, kind: type[OfFile]) -> None:
    """An attribute that can be sent is: here a number, which no worker can read from."""
    seq = make(kind)
    with seq.prefetch(nb_workers=1) as batches:
        list(batches)
        _ = seq[0]
        list(batches)
        seq.handle.close()
        seq.handle = 7
        with pytest.raises((TypeError, AttributeError), match="int"):
            list(batches)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_looked_at_before(make: Any, kind: type[OfFile]) -> None:
    """The error names what it is, and the recipe."""
    seq = make(kind)
    _ = seq[0]
    with pytest.raises(NotPicklableError) as raised:
        seq.prefetch(nb_workers=2)
    text = str(raised.value)
    assert ".handle" in text
    assert "def __getstate__(self): return {**self.__dict__, 'handle': None}" in text


@pytest.mark.parametrize("kind", [Hdf5ByRecipe, SqliteByRecipe])
def test_the_recipe(make: Any, caplog: Any, kind: type[OfFile]) -> None:
    seq = make(kind)
    _ = seq[0]
    with seq.prefetch(nb_workers=2) as batches:
        for _ in range(2):
            assert [int(batch) for batch in batches] == list(range(LENGTH))
            _ = seq[1]
    assert not caplog.records
