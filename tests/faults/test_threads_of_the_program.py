"""Several threads of the program that read one iterator: each batch goes to one of them, and all end."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from faulty import PATIENCE_S

from workers import ClosedError, Sequence, StalePassError, prefetch

LENGTH = 60


class Numbers(Sequence[int]):
    def __init__(self, fails_at: int = -1) -> None:
        super().__init__(seed=1)
        self.fails_at = fails_at

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> int:
        if index == self.fails_at:
            raise ValueError(f"batch {index}")
        time.sleep(0.0005)
        return index


def in_threads(read: Any, number: int = 4) -> list[list[Any]]:
    """What ``read()`` yields in each of so many threads, and what it has raised."""
    got: list[list[Any]] = [[] for _ in range(number)]

    def run(mine: list[Any]) -> None:
        try:
            mine.extend(read())
        except Exception as error:
            mine.append(error)

    threads = [threading.Thread(target=run, args=(mine,), daemon=True) for mine in got]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    return got


def made(nb_workers: Any, **options: Any) -> Any:
    return Numbers() if nb_workers is None else Numbers().prefetch(nb_workers, **options)


@pytest.mark.parametrize("nb_workers", [None, 0, 1, 2, "auto"])
@pytest.mark.parametrize("number", [2, 4])
def test_each_batch_goes_to_one_thread(nb_workers: Any, number: int) -> None:
    with made(nb_workers) as batches:
        for _ in range(2):
            iterator = iter(batches)
            got = in_threads(lambda of=iterator: of, number)
            assert sorted(batch for mine in got for batch in mine) == list(range(LENGTH))
            assert all(mine == sorted(mine) for mine in got)
            assert list(iterator) == []


@pytest.mark.parametrize("options", [{"in_order": False}, {"executor": "thread"}, {"output": "torch"}])
def test_with_other_options(options: dict[str, Any]) -> None:
    if "output" in options:
        pytest.importorskip("torch")
    with made(2, **options) as batches:
        iterator = iter(batches)
        assert sorted(batch for mine in in_threads(lambda: iterator) for batch in mine) == list(range(LENGTH))


@pytest.mark.parametrize("nb_workers", [0, 2, "auto"])
def test_a_state_in_between(nb_workers: Any) -> None:
    with made(nb_workers) as batches:
        iterator = iter(batches)
        got = in_threads(lambda: (next(iterator) for _ in range(5)))
        state = batches.state_dict()
    first = [batch for mine in got for batch in mine]
    with made(1) as batches:
        batches.load_state_dict(state)
        assert sorted(first + list(batches)) == list(range(LENGTH))


@pytest.mark.parametrize("nb_workers", [0, 2, "auto"])
def test_an_error_reaches_one_thread(nb_workers: Any) -> None:
    with Numbers(fails_at=20).prefetch(nb_workers) as batches:
        iterator = iter(batches)
        got = [each for mine in in_threads(lambda: iterator) for each in mine]
    assert [str(each) for each in got if isinstance(each, ValueError)] == ["batch 20"]
    assert sorted(each for each in got if isinstance(each, int)) == [each for each in range(LENGTH) if each != 20]


def test_next_of_the_front_end() -> None:
    with made(2) as batches:
        iter(batches)
        got = in_threads(lambda: iter(lambda: batches.next_item(True), None))
    assert sorted(each for mine in got for each in mine if isinstance(each, int)) == list(range(LENGTH))


@pytest.mark.parametrize("nb_workers", [0, 2])
def test_another_pass_or_the_end_is_told_to_all(nb_workers: Any) -> None:
    with made(nb_workers) as batches:
        iterator = iter(batches)

        def read() -> Any:
            for batch in iterator:
                yield batch
                if batch == 20:
                    iter(batches)

        got = [mine[-1] for mine in in_threads(read)]
        assert all(isinstance(each, StalePassError) for each in got)
        iterator = iter(batches)

        def close() -> Any:
            for batch in iterator:
                yield batch
                if batch == 20:
                    batches.close()

        got = [mine[-1] for mine in in_threads(close)]
        assert all(isinstance(each, (ClosedError, StalePassError)) for each in got)


def test_a_collate_fn_that_asks_for_a_batch_of_its_loop() -> None:
    def collate(batch: int, source: Any) -> int:
        return batch + int(next(loop)) if batch == 3 else batch

    with Numbers().map(None, 0, collate_fn=collate) as batches:
        loop = iter(batches)
        assert [next(loop) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(RuntimeError, match="collate_fn has asked for a batch of the loop"):
            next(loop)
        assert list(loop) == list(range(4, LENGTH))
    with prefetch([1, 2], 0) as batches:
        assert list(batches) == [1, 2]
