"""What the messages of a worker process become in the engine."""

from __future__ import annotations

from typing import Any

import pytest

from workers.batch.slot_reader import SlotReader
from workers.engine.executor import Cancelled, Trimmed
from workers.process.messages import Results
from workers.process.worker_handle import WorkerHandle


@pytest.mark.parametrize("answers_trim", [False, True])
@pytest.mark.parametrize("rows", [[], [(4, 0, None), (5, 0, None)]])
def test_only_an_answer_counts_as_one(answers_trim: bool, rows: list[Any]) -> None:
    """An idle worker that gives memory back by itself has not done what it may be asked for at that moment."""
    handle = WorkerHandle.__new__(WorkerHandle)
    handle.name, handle.number, handle._reader = 7, 0, SlotReader()
    events = handle.events_of(Results([], [], False, [], rows, [], None, answers_trim), [])
    assert events == [*([Trimmed(7, 0)] if answers_trim else []), *(Cancelled(7, sending) for sending, _, _ in rows)]
