"""An exception of a job on its way to the consumer: same type where it can be rebuilt, with the job's traceback."""

from __future__ import annotations

import bdb
import os
import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest

from workers.engine.remote_errors import RemoteFailure, exit_code, pack, unpack
from workers.errors import JobError, RemoteTraceback

if TYPE_CHECKING:
    from typing_extensions import Self


class TwoArguments(Exception):
    """Pickles, but is not rebuilt as it was: args has one item, the constructor wants two."""

    def __init__(self, what: str, number: int) -> None:
        super().__init__(f"{what} {number}")
        self.number = number


class Held(ValueError):
    """Holds what cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text, threading.Lock())
        self.lock = threading.Lock()
        self.note = "kept"

    def __str__(self) -> str:
        return str(self.args[0])


class ForgetsItsText(Exception):
    """Is rebuilt without an error, and with another text."""

    def __init__(self, text: str = "no text") -> None:
        super().__init__()
        self.text = text

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> Any:
        return ForgetsItsText, ()


class OwnNew(Exception):
    """Is made without arguments, and gets them later; and cannot be rebuilt by its constructor."""

    def __new__(cls, *args: Any) -> Self:
        return super().__new__(cls)

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


class NoText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


class Unrebuildable(Exception):
    is_made = False

    def __new__(cls, *args: Any) -> Self:
        if cls.is_made:
            raise RuntimeError("not a second time")
        return super().__new__(cls, *args)


def travelled(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as raised:
        packed = pack(raised)
    return unpack(pickle.loads(pickle.dumps(packed, protocol=5)), "batch 3 of epoch 1")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x", 2),
        OSError(2, "gone", "file"),
        KeyError("k"),
        TwoArguments("cats", 3),
        Held("h"),
        OwnNew("a", "b"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_type_and_the_text_stay(error: Exception) -> None:
    got = travelled(error)
    assert type(got) is type(error)
    assert str(got) == str(error)
    assert got.args[:1] == error.args[:1]


def test_attributes_stay_where_they_can() -> None:
    got: Any = travelled(TwoArguments("cats", 3))
    assert got.number == 3
    got = travelled(Held("h"))
    assert got.note == "kept"
    assert not hasattr(got, "lock")
    assert "lock" in got.args[1]  # its repr
    got = travelled(ForgetsItsText("its own"))
    assert (type(got), str(got)) == (ForgetsItsText, "its own")


def test_where_it_was_raised() -> None:
    error = ValueError("x")
    error.__notes__ = ["its own note"]  # type: ignore[attr-defined]
    got: Any = travelled(error)
    assert got.__notes__ == ["its own note", f"raised in batch 3 of epoch 1, process {os.getpid()}"]
    assert isinstance(got.__cause__, RemoteTraceback)
    assert "in travelled" in got.__cause__.text
    assert "raise error" in str(got.__cause__)


@pytest.mark.parametrize("error", [StopIteration(3), StopAsyncIteration(), SystemExit(2), KeyboardInterrupt()])
def test_what_would_end_the_loop_or_the_program(error: BaseException) -> None:
    got = travelled(error)
    assert type(got) is JobError
    assert type(error).__name__ in str(got)


def test_what_cannot_be_rebuilt(monkeypatch: pytest.MonkeyPatch) -> None:
    """It becomes a JobError with its name and its text."""
    error = Unrebuildable("rebuilt")
    monkeypatch.setattr(Unrebuildable, "is_made", True)
    got = travelled(error)
    assert type(got) is JobError
    assert str(got) == f"{__name__}.Unrebuildable: rebuilt"
    assert "Unrebuildable" in got.__cause__.text  # type: ignore[union-attr]
    unknown = RemoteFailure(b"not a pickle", "there.Error", "its text", "its traceback", 7)
    got = unpack(unknown, "batch 0 of epoch 0")
    assert (type(got), str(got)) == (JobError, "there.Error: its text")


def test_a_text_that_fails() -> None:
    assert "its __str__ failed" in pack(NoText()).message


def test_a_text_without_end() -> None:
    packed = pack(ValueError("x" * (5 << 20)))
    assert len(packed.message) == len(packed.traceback) == 1 << 20


@pytest.mark.parametrize(
    ("error", "code"), [(None, 0), (ValueError(), 1), (SystemExit(3), 3), (SystemExit(), 0), (SystemExit("bye"), 1)]
)
def test_exit_code(error: BaseException | None, code: int) -> None:
    assert exit_code(error) == code
    if error is not None:
        wrapped = JobError("x")
        wrapped.__cause__ = error
        assert exit_code(wrapped) == code


class OfUser(AttributeError):
    pass


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (bdb.BdbQuit(), "nb_workers=0"),
        (EOFError("EOF when reading a line"), "nb_workers=0"),
        (AttributeError("Can't get attribute 'X' on <module '__main__'>"), "needs = "),
        (pickle.PicklingError("Can't pickle <f>: attribute lookup f on __main__ failed"), "needs = "),
        (EOFError("Ran out of input"), None),
        (AttributeError("'X' object has no attribute 'y'"), None),
        (OfUser("of __main__"), None),
    ],
)
def test_what_is_due_to_being_in_a_worker(error: BaseException, hint: str | None) -> None:
    """The text of the error says what to do about it, once; other errors stay as they are."""
    text = str(error)
    for _ in range(2):
        got = str(unpack(pack(error), "epoch 0, batch 1"))
        assert got.startswith(text)
        assert got.count(hint) == 1 if hint else got == text
