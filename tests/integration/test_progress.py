"""Progress bars of passes: what they count, that they are iterators like others, and that none is left."""

from __future__ import annotations

import gc
import io
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from telling import Telling
from terminals import shown, terminal, written
from tqdm import tqdm

from workers import ClosedError, Sequence, SequenceArray, SequenceMap, StalePassError, prefetch
from workers.sequence.progress import Bar


@pytest.fixture
def _no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tqdm's own bars; ours have none."""
    monkeypatch.setattr(tqdm, "monitor_interval", 0)


@pytest.fixture(autouse=True)
def _no_bar_is_left() -> Iterator[None]:
    yield
    gc.collect()
    assert not list(Bar._instances)


class Stream:
    """Has only ``__iter__``."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(7))


def twice(item: Any) -> list[Any]:
    return [item, item]


def first(batch: Any) -> Any:
    return batch[0]


def numbers() -> SequenceArray:
    return SequenceArray({"x": np.arange(20)}, seed=1)


def with_file(**options: Any) -> dict[str, Any]:
    """For a bar that is drawn at each step, wherever this runs."""
    return {"file": io.StringIO(), "disable": False, "mininterval": 0.0, "ncols": 100, **options}


# (what makes it, its length, what the loop gets)
KINDS: list[tuple[str, Callable[[], Any], int | None, int]] = [
    ("sequence", Telling, 10, 10),
    ("front-end without workers", lambda: Telling().prefetch(nb_workers=0), 10, 10),
    ("workers", lambda: Telling().prefetch(nb_workers=2), 10, 10),
    ("threads", lambda: Telling().prefetch(nb_workers=2, executor="thread"), 10, 10),
    ("out of order", lambda: Telling().prefetch(nb_workers=2, in_order=False), 10, 10),
    ("list", lambda: prefetch([1, 2, 3], nb_workers=1), 3, 3),
    ("map", lambda: SequenceMap([1, 2, 3], 1, abs), 3, 3),
    ("samples", numbers, 20, 20),
    ("batch", lambda: numbers().batch(8), 3, 3),
    ("chain", lambda: numbers().shuffle().map(first_of_x, nb_workers=1).batch(8), 3, 3),
    ("shard", lambda: numbers().batch(2).shard(1, 3), 3, 3),
    ("shard, padded", lambda: numbers().batch(2).shard(2, 3, "pad").prefetch(nb_workers=1), 4, 4),
    ("lists", lambda: SequenceMap([1, 2, 3], 1, twice), 3, 6),
    ("batches of lists", lambda: numbers().map(twice, nb_workers=1).batch(8), 3, 5),
    ("rebatch", lambda: numbers().batch(6).prefetch(nb_workers=1).rebatch(5), None, 4),
    ("max_samples", lambda: numbers().batch(4).max_samples(30).prefetch(nb_workers=1), None, 8),
    ("stream", lambda: prefetch(Stream(), nb_workers=1), None, 7),
]


def first_of_x(sample: Any) -> Any:
    return sample["x"]


IDS = [name for name, *_ in KINDS]


@pytest.mark.usefixtures("_no_thread")
@pytest.mark.parametrize(("make", "length", "count"), [row[1:] for row in KINDS], ids=IDS)
def test_tqdm_knows_the_length(make: Callable[[], Any], length: int | None, count: int) -> None:
    with make() as batches:
        bar = tqdm(batches, file=io.StringIO())
        assert bar.total == length
        assert len(list(bar)) == bar.n == count


@pytest.mark.parametrize(("make", "length", "count"), [row[1:] for row in KINDS], ids=IDS)
def test_progress_counts_to_the_end(make: Callable[[], Any], length: int | None, count: int) -> None:
    """Twice: each is one pass."""
    with make() as batches:
        for _ in range(2):
            bar = batches.progress(**with_file())
            assert iter(bar) is bar
            assert bool(bar)
            assert len(list(bar)) == count
            assert (bar.total, bar.n) == (length, length or count)
            with pytest.raises(StopIteration):
                next(bar)


def test_the_batches_are_those_of_a_loop() -> None:
    with Telling().prefetch(nb_workers=2) as plain, Telling().prefetch(nb_workers=2) as shown_too:
        for _ in range(2):
            found = [x[:, [0, 1, 4]].tolist() for x, _ in shown_too.progress(**with_file())]
            assert found == [x[:, [0, 1, 4]].tolist() for x, _ in plain]


@pytest.mark.usefixtures("_no_thread")
@pytest.mark.parametrize("nb_workers", [None, 0, 2])
def test_within_an_epoch(nb_workers: int | None) -> None:
    def make() -> Sequence:
        return Telling() if nb_workers is None else Telling().prefetch(nb_workers=nb_workers)

    with make() as batches:
        loop = iter(batches)
        for _ in range(3):
            next(loop)
        state = batches.state_dict()
    with make() as batches:
        batches.load_state_dict(state)
        bar = batches.progress(**with_file())
        assert (bar.initial, bar.n, bar.total) == (3, 3, 10)
        assert len(list(bar)) == 7
        assert bar.n == 10
        assert "3/10" in bar.fp.getvalue()
    with make() as batches:
        batches.load_state_dict(state)
        bar = tqdm(batches, file=io.StringIO())  # which knows nothing of states: the epoch's length, what is left
        assert (bar.total, len(list(bar)), bar.n) == (10, 7, 7)


def test_options_of_the_user_take_the_place_of_ours() -> None:
    with Telling().prefetch(nb_workers=1) as batches:
        bar = batches.progress(**with_file(total=50, initial=20, desc="training", unit=" steps", postfix="of mine"))
        assert next(bar)
        assert len(list(bar)) == 9
        assert (bar.total, bar.n) == (50, 30)
        assert "training:  60%" in bar.fp.getvalue()
        assert "steps/s, of mine, waits " in bar.fp.getvalue()


def test_an_unknown_option() -> None:
    with pytest.raises(TypeError, match=r"has no option descr='x'; it has .* desc, total, "):
        Telling().progress(descr="x")


def test_a_postfix_can_be_set_meanwhile() -> None:
    bar = Telling().progress(**with_file())
    for _ in bar:
        bar.set_postfix(loss=0.5)
    assert "10/10" in bar.fp.getvalue()
    assert "loss=0.5]" in bar.fp.getvalue()  # a plain sequence waits for nobody
    assert "waits" not in bar.fp.getvalue()


@pytest.mark.parametrize("nb_workers", [None, 0, 2])
def test_a_batch_that_raises(nb_workers: int | None) -> None:
    """The next ``next()`` goes on behind it, and so does the bar."""
    source: Any = Telling(bad=4)
    with source if nb_workers is None else source.prefetch(nb_workers=nb_workers) as batches:
        bar = batches.progress(**with_file())
        assert [int(next(bar)[0][0, 0]) for _ in range(4)] == [0, 1, 2, 3]
        with pytest.raises(KeyError, match="batch 4"):
            next(bar)
        assert not bar.disable
        assert [int(x[0, 0]) for x, _ in bar] == [5, 6, 7, 8, 9]
        assert bar.n == 10
        assert bar.disable


def test_a_batch_that_is_skipped_counts() -> None:
    with Telling(bad=9).prefetch(nb_workers=2, on_error="skip") as batches:
        bar = batches.progress(**with_file())
        assert len(list(bar)) == 9
        assert bar.n == 10


def open_bars() -> list[Any]:
    return list(Bar._instances)


def loop(batches: Sequence, file: io.StringIO) -> None:
    for _ in batches.progress(**with_file(file=file)):
        assert len(open_bars()) == 1


@pytest.mark.parametrize("nb_workers", [None, 2])
def test_an_error_ends_the_loop_and_its_bar(nb_workers: int | None) -> None:
    source: Any = Telling(bad=4)
    file = io.StringIO()
    with source if nb_workers is None else source.prefetch(nb_workers=nb_workers) as batches:
        with pytest.raises(KeyError) as raised:
            loop(batches, file)
        assert raised.tb is not None  # which holds what was called
        assert not open_bars()
        assert file.getvalue().endswith("\n")


def test_break_ends_it() -> None:
    file = io.StringIO()
    with Telling().prefetch(nb_workers=1) as batches:
        for _ in batches.progress(**with_file(file=file)):
            break
        assert not open_bars()
        assert file.getvalue().endswith("\n")
        assert [int(x[0, 1]) for x, _ in batches] == [1] * 10  # the next epoch, whole


@pytest.mark.parametrize("made", [lambda source: source, lambda source: source.max_samples(9)], ids=["", "max_samples"])
def test_closing_ends_it(made: Callable[[Any], Any]) -> None:
    with made(Telling().prefetch(nb_workers=1)) as batches:
        bar = batches.progress(**with_file())
        next(bar)
    assert bar.disable
    assert bar.fp.getvalue().endswith("\n")
    with pytest.raises(ClosedError):
        next(bar)


def test_a_newer_pass_ends_it() -> None:
    with Telling().prefetch(nb_workers=1) as batches:
        older = batches.progress(**with_file())
        next(older)
        newer = batches.progress(**with_file())
        assert older.disable
        with pytest.raises(StalePassError):
            next(older)
        assert len(list(newer)) == 10
        third = batches.progress(**with_file())
        assert len(list(batches)) == 10  # a loop without a bar
        with pytest.raises(StalePassError):
            next(third)
        assert third.disable


class Interrupting(io.StringIO):
    """Raises the signal of Ctrl-C as it is written to for the ``at``-th time."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def write(self, text: str) -> int:
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)
        return super().write(text)


@pytest.mark.parametrize("at", [2, 5, 10, 12])  # one of each batch; the last ones as it is closed
@pytest.mark.parametrize("nb_workers", [0, 2])
def test_ctrl_c_while_it_is_drawn_costs_no_batch(nb_workers: int, at: int) -> None:
    with Telling().prefetch(nb_workers=nb_workers) as batches:
        bar = batches.progress(**with_file(file=Interrupting(at)))
        found, interrupts = [], 0
        while True:
            try:
                found.append(int(next(bar)[0][0, 0]))
            except KeyboardInterrupt:
                interrupts += 1
            except StopIteration:
                break
        assert interrupts == 1
        assert found == list(range(10))
        assert bar.n == 10
        drawn = threading.Thread(target=lambda: list(Bar(range(3), **with_file())))  # it can: the lock is free
        drawn.start()
        drawn.join()


def test_without_a_terminal_it_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with Telling().prefetch(nb_workers=1) as batches:
        assert len(list(batches.progress())) == 10
    assert list(Bar(range(3), delay=0)) == [0, 1, 2]
    assert capfd.readouterr() == ("", "")


def test_in_a_terminal_it_is_not() -> None:
    with terminal() as file, Telling().prefetch(nb_workers=1) as batches:
        bar = batches.progress(file=file)
        assert not bar.disable
        assert len(list(bar)) == 10


PROGRAM = """
import sys
import workers, sampler
assert "tqdm" not in sys.modules
with workers.prefetch([0] * 20, nb_workers=2) as batches:
    for _ in batches.progress(desc="training", mininterval=0):
        pass
"""


def test_a_program_in_a_terminal() -> None:
    lines = shown(PROGRAM).replace("\r\n", "\n")
    assert lines.endswith("\n")
    *before, last = lines.strip().split("\r")
    assert before
    assert last.startswith("training: 100%|")
    assert "| 20/20 [" in last
    assert " batches/s, waits " in last
    assert last.endswith(" %]")


def test_a_program_without_one() -> None:
    assert written(PROGRAM) == ""
