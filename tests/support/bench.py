"""A schedule with nothing around it: workers and a consumer that do what a test has them do."""

from __future__ import annotations

from typing import Any

from workers.engine.schedule import Schedule


class Bench:
    """A schedule, its workers, and what the consumer got."""

    def __init__(self, num_workers: int = 2, ready: bool = True, **options: Any) -> None:
        self.schedule = Schedule(num_workers, **options)
        self.next_worker = 0
        self.sent: dict[int, list[Any]] = {}  # {worker: rows it has not answered}
        self.untaken: list[tuple[int, Any]] = []
        self.taken: list[tuple[int, Any]] = []
        for _ in range(num_workers):
            self.start(ready)

    def start(self, ready: bool = True) -> None:
        self.schedule.started(self.next_worker)
        if ready:
            self.schedule.ready(self.next_worker)
        self.sent[self.next_worker] = []
        self.next_worker += 1

    def turn(self, now_ns: int = 0) -> None:
        self.untaken += self.schedule.take_outcomes()
        relieved = self.schedule.relieve(self.schedule.to_relieve(now_ns)) if now_ns else []
        for worker, rows in [*relieved, *self.schedule.plan(len(self.untaken))]:
            self.sent[worker] += rows
        self.schedule.cancelled.clear()
        self.schedule.check()

    def wants(self, worker: int, sending: int) -> bool:
        return self.schedule.ticket(worker, sending) is not None

    def done(self, worker: int, sending: int, result: Any, ns: int = 0) -> bool:
        ticket = self.schedule.take_back(worker, sending)
        if ticket is None:
            return False
        self.schedule.finish(ticket, result, ns)
        return True

    def answer(self, worker: int, ns: int = 0) -> None:
        row = self.sent[worker].pop(0)
        self.done(worker, row.sending, (row.epoch, row.index), ns)

    def die(self, worker: int, running: bool = True, with_others: bool = False) -> None:
        rows = self.sent.pop(worker)
        self.schedule.died(worker, rows[0].sending if running and rows else 0, "cause", with_others)
        self.start()

    def die_with_server(self) -> None:
        for worker in list(self.sent):
            self.die(worker, with_others=True)

    def take(self) -> None:
        self.taken.append(self.untaken.pop(0))

    def finish(self) -> None:
        """Everybody does what he has to, until nothing is left."""
        for _ in range(100_000):
            self.turn()
            busy = [worker for worker, rows in self.sent.items() if rows]
            if busy:
                self.answer(busy[0])
            elif self.untaken:
                self.take()
            else:
                return
        raise AssertionError("no end")

    def finish_sent(self) -> None:
        """All that is with a worker is answered, and what then is sent."""
        while busy := [worker for worker, rows in self.sent.items() if rows]:
            self.answer(busy[0])
            self.turn()

    def indices(self) -> list[int]:
        return [index for index, _ in self.taken]
