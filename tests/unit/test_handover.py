"""What passes between the consumer's thread and the engine's: no wake-up is lost, and few are for nothing."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from workers.engine.handover import NEVER, Handover, Outcome
from workers.engine.results import Result


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads take turns every microsecond, so that all that can come in between does."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize(("bound", "wanted"), [(1, 1), (3, 1), (3, 3), (16, 8)])
def test_no_wake_up_is_lost(bound: int, wanted: int, hasty_threads: None) -> None:
    """An engine that sleeps whenever it lacks room, and a consumer that wakes it only by what it takes."""
    awake: queue.SimpleQueue[None] = queue.SimpleQueue()
    handover = Handover(lambda: awake.put(None))
    length, is_lost = 4_000, threading.Event()

    def engine() -> None:
        for _ in range(3):
            outcomes = passes.get()
            handover.begin(outcomes)
            handed = 0
            while handed < length:
                untaken = handover.num_untaken
                room = bound - untaken
                if room >= wanted:
                    new = range(handed, min(length, handed + room))
                    handover.hand_over([(index, Result(None)) for index in new], [])
                    handed = new.stop
                elif handover.sleep_without(wanted - room, untaken):
                    try:
                        awake.get(timeout=20.0)
                    except queue.Empty:
                        is_lost.set()
                        return
            handover.sleep()

    passes: queue.SimpleQueue[dict[int, Outcome]] = queue.SimpleQueue()
    thread = threading.Thread(target=engine)
    thread.start()
    for _ in range(3):
        outcomes: dict[int, Outcome] = {}
        handover.ask(outcomes)
        passes.put(outcomes)
        for number in range(length):
            while number not in outcomes and not is_lost.is_set():
                time.sleep(0)
            handover.drop(number)
    thread.join()
    assert not is_lost.is_set()


def test_the_engine_is_woken_once_for_what_it_waits_for() -> None:
    woken: list[int] = []
    handover = Handover(lambda: woken.append(handover.num_taken))
    handover.ask(outcomes := {})
    handover.begin(outcomes)
    handover.hand_over([(index, Result(None)) for index in range(6)], [])
    assert handover.sleep_without(3, handover.num_untaken)
    for number in range(6):
        handover.drop(number)
    assert woken == [3]
    assert not handover.sleep_without(0, handover.num_untaken)


def test_a_new_pass_begins_to_count_anew() -> None:
    """Though the number is the one that the engine was woken for last."""
    woken: list[None] = []
    handover = Handover(lambda: woken.append(None))
    for number in range(2):
        handover.ask(outcomes := {})
        handover.begin(outcomes)
        handover.hand_over([(index, Result(None)) for index in range(2)], [])
        assert handover.sleep_without(1, 2)
        handover.drop(0)
        assert len(woken) == number + 1


def test_taken_meanwhile() -> None:
    """What the consumer takes after the engine has counted keeps it from sleeping."""
    woken: list[None] = []
    handover = Handover(lambda: woken.append(None))
    handover.ask(outcomes := {})
    handover.begin(outcomes)
    handover.hand_over([(index, Result(None)) for index in range(2)], [])
    untaken = handover.num_untaken
    handover.drop(0)
    assert not handover.sleep_without(1, untaken)
    handover.sleep()
    woken.clear()
    handover.wake_if_wanted()
    assert woken == []
    assert handover._wake_at == NEVER


def test_taken_right_after_the_engine_has_looked() -> None:
    """It has set the number by then: so it is woken, though it goes to sleep."""
    woken: list[None] = []

    class Outcomes(dict[int, Outcome]):
        is_looked_at = False

        def __len__(self) -> int:
            length = super().__len__()
            if self.is_looked_at:
                self.is_looked_at = False
                handover.drop(0)
            return length

    handover = Handover(lambda: woken.append(None))
    handover.ask(outcomes := Outcomes())
    handover.begin(outcomes)
    handover.hand_over([(0, Result(None))], [])
    outcomes.is_looked_at = True
    assert handover.sleep_without(1, 1)
    assert woken == [None]


def test_the_engine_is_woken_when_the_consumer_waits() -> None:
    """If it wants to be: it then sleeps until the next outcome is taken, or waited for."""
    woken: list[str] = []
    handover = Handover(lambda: woken.append("woken"))
    handover.ask(outcomes := {})
    handover.begin(outcomes)
    handover.wait_for(0)
    assert handover.is_awaited
    assert woken == []
    handover.hand_over([(index, Result(None)) for index in range(2)], [])
    assert not handover.is_awaited
    assert handover.sleep_until_asked(handover.progress, False)
    handover.drop(0)
    assert woken == ["woken"]
    assert not handover.sleep_until_asked((2, 2), False)  # taken meanwhile
    assert handover.sleep_until_asked(handover.progress, False)
    handover.drop(1)
    handover.wait_for(2)
    assert woken == ["woken"] * 3
    assert handover.is_awaited
    assert not handover.sleep_until_asked(handover.progress, False)  # it waits meanwhile
    handover.sleep()
    handover.wait_for(2)
    assert woken == ["woken"] * 3
    handover.ask({})
    assert not handover.is_awaited
