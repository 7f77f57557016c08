"""What is logged in a worker reaches the handlers of the program, and harms nobody."""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any

import pytest

from workers import Sequence, WorkerDiedError, prefetch
from workers.process import logs
from workers.process.messages import Logged

LENGTH = 20
log = logging.getLogger("tests.of.logs")


class Logs(Sequence):
    """Each job logs ``num`` records, of which the first tells its index."""

    def __init__(self, num: int = 1, in_thread: bool = False) -> None:
        super().__init__(seed=1)
        self.num = num
        self.in_thread = in_thread

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> int:
        if self.in_thread:
            thread = threading.Thread(target=self.tell, args=(index,))
            thread.start()
            thread.join()
        else:
            self.tell(index)
        return index

    def tell(self, index: int) -> None:
        for number in range(self.num):
            log.info("batch %d, record %d", index, number, extra={"where": {"index": index, "epoch": self.epoch}})


@pytest.fixture(autouse=True)
def all_levels(caplog: Any) -> None:
    caplog.set_level(logging.INFO)


def of_workers(caplog: Any) -> list[Any]:
    return [record for record in caplog.records if record.name == log.name]


class Slow(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.num = 0

    def emit(self, record: logging.LogRecord) -> None:
        time.sleep(0.02)
        self.num += 1


def test_the_end_waits_for_slow_handlers() -> None:
    slow = Slow()
    log.addHandler(slow)
    try:
        with Logs().prefetch(nb_workers=2) as batches:
            assert list(batches) == list(range(LENGTH))
        assert slow.num >= LENGTH
    finally:
        log.removeHandler(slow)


def test_what_a_worker_has_dropped_is_said(caplog: Any) -> None:
    inlet = logs.Inlet()
    inlet.put(Logged(None, 7))
    inlet.close()
    assert [record.getMessage().split()[0] for record in caplog.records] == ["7"]


@pytest.mark.parametrize("in_thread", [False, True])
def test_records_arrive(caplog: Any, in_thread: bool) -> None:
    """Each once, as what it was, with the name of the worker."""
    with Logs(in_thread=in_thread).prefetch(nb_workers=2) as batches:
        assert list(batches) == list(range(LENGTH))
    found = of_workers(caplog)
    got = [record.getMessage() for record in found]
    # The next epoch has begun too.
    assert {f"batch {i}, record 0" for i in range(LENGTH)} == set(got)
    assert len(got) == len({(record.getMessage(), record.where) for record in found})
    assert {record.processName for record in found} <= {"worker-0", "worker-1"}
    assert all(record.process != os.getpid() and record.levelno == logging.INFO for record in found)
    assert found[0].where.startswith("{'index': ")


def test_levels_are_the_programs(caplog: Any) -> None:
    """Of the root and of each logger: what nobody wants is not sent."""
    caplog.set_level(logging.ERROR, log.name)
    with prefetch([0], 1).map(lambda _: (logging.root.level, log.level, logging.getLogger("x").level)) as batches:
        assert next(batches) == (logging.INFO, logging.ERROR, logging.NOTSET)


def test_an_exception_that_is_logged(caplog: Any) -> None:
    def job(_: int) -> None:
        try:
            raise KeyError("of a worker")
        except KeyError:
            log.exception("it failed")

    with prefetch([0], 1).map(job) as batches:
        next(batches)
    assert "KeyError: 'of a worker'" in caplog.text


def test_a_flood(caplog: Any, monkeypatch: Any) -> None:
    """Of records that no handler can keep up with: batches come, and it is said how many records do not."""
    monkeypatch.setattr(logs, "_MAX_UNREAD", 50)
    may_go_on = threading.Event()

    class Stopped(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            may_go_on.wait()

    stopped = Stopped()
    log.addHandler(stopped)
    try:
        with Logs(500).prefetch(nb_workers=2) as batches:
            assert list(batches) == list(range(LENGTH))
            may_go_on.set()
    finally:
        may_go_on.set()
        log.removeHandler(stopped)
    told = [record for record in caplog.records if "were dropped" in record.msg]
    assert len(of_workers(caplog)) + sum(record.args[0] for record in told) >= 500 * LENGTH
    assert told


def test_a_socket_that_is_full() -> None:
    """A record waits, and if there are too many it is counted; nobody is kept waiting."""
    one, other = logs.Channel.__init__.__globals__["pair"]()
    channel = logs.Channel(one)
    outlet = logs.Outlet(channel, 3)
    for number in range(10_000):
        outlet.emit(logging.LogRecord("x", logging.INFO, "", 0, "number %d", (number,), None))
    reader, got, dropped = logs.Channel(other), [], 0
    sender = threading.Thread(target=outlet.send, args=(("end",),))
    sender.start()
    is_over = False
    while not is_over:
        for message, _ in reader.receive():
            is_over = tuple(message) == ("end",)
            if not is_over:
                record, more = message
                dropped += more
                got += [record] if record else []
    sender.join()
    channel.close()
    reader.close()
    assert [record["msg"] for record in got] == [f"number {number}" for number in range(len(got))]
    assert dropped > 0
    assert len(got) + dropped == 10_000


def test_a_handler_that_fails(capfd: Any) -> None:
    class Fails(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise ZeroDivisionError("of a handler")

    fails = Fails()
    log.addHandler(fails)
    try:
        with Logs().prefetch(nb_workers=2) as batches:
            assert list(batches) == list(range(LENGTH))
    finally:
        log.removeHandler(fails)
    assert "ZeroDivisionError: of a handler" in capfd.readouterr().err


def test_a_record_of_what_is_killed(caplog: Any) -> None:
    """It was sent at once."""

    def job(index: int) -> int:
        log.info("last words")
        os._exit(1)

    with prefetch([0], 1, max_retries=0).map(job) as batches, pytest.raises(WorkerDiedError, match="exit"):
        next(batches)
    assert "last words" in caplog.text


def test_a_fork_of_a_job_says_nothing(caplog: Any) -> None:
    """Its parent's channel is not its own."""

    def job(index: int) -> int:
        if (child := os.fork()) == 0:
            log.info("of a fork")
            os._exit(3)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    with prefetch([0, 1], 1).map(job) as batches:
        assert list(batches) == [3, 3]
    assert "of a fork" not in caplog.text
