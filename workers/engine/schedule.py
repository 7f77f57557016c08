"""Decides which worker computes which batch, and when, as a pure state machine.

Events come in as method calls (:meth:`Schedule.finish`, :meth:`~Schedule.died`, ...), time comes as an argument, and
:meth:`Schedule.plan` returns which jobs to send to which worker. Nothing here does I/O, sleeps, or looks into a batch.

Words:

- A *pass* is one run of the consumer's loop over an epoch. The consumer reads one pass at a time; the next pass may
  already be computed (``ahead``).
- A *ticket* is the number of a batch in the order of delivery, counted through all passes.
- A *sending* is the number under which a job is sent to a worker. The job of a ticket is with one worker at a time, but
  may be sent again: after its worker died, or to another worker because the first is stuck in another job. Only the
  result of the latest sending counts; its bytes are the same whichever worker computes it.

Invariants (:meth:`Schedule.check` asserts the first):

- each ticket below ``Passes.next`` that is not yet delivered is in exactly one place: finished, to be sent again,
  parked (see :mod:`workers.engine.waiting_for_memory`), or with one worker;
- finished + with workers + to be sent again + delivered but not taken <= the bound, when something new is sent;
- a pass is delivered once, completely, and in order (or as batches finish, if not ``in_order``).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from .bounds import BUNDLE_NS, Bounds, QueueLoad
from .delivery import Delivery
from .passes import EnginePass, Passes
from .results import Failure, Result
from .waiting_for_memory import WaitingForMemory
from .worker_loads import WorkerLoad, WorkerLoads


class JobRow(NamedTuple):
    """A job as it is sent to a worker, e.g. JobRow(sending=17, epoch=0, index=4, attempt=0, payload=None)."""

    sending: int
    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which is not needed
    attempt: int
    payload: Any  # the input of the job; None: the sequence's batch at ``index``


Send = tuple[int, list[JobRow]]  # a message: (worker, rows)


class Schedule:
    """The state machine that decides which worker of a pool computes which batch, and when: see the module's docstring.

    Args:
        num_workers: how many workers share the work.
        max_queue_size: how many batches may be finished or in work ahead of the consumer; None lets Bounds choose.
        in_order: deliver batches in the order of their indices, not as they finish.
        max_runs: how often a job is started before its batch is given up, if its workers die.
        explain: builds the exception for a batch whose job ended its worker too often, from (epoch, index, number of
            deaths, their causes, what the pool may hold in memory).
        keeps_failed: keep the inputs of failed jobs, which may be retried, until :meth:`forget`.
        bundle_ns: jobs that together take less than this are sent together.
    """

    def __init__(
        self,
        num_workers: int,
        max_queue_size: int | None = None,
        in_order: bool = True,
        max_runs: int = 3,
        explain: Callable[[int, int, int, list[Any], QueueLoad], BaseException] | None = None,
        keeps_failed: bool = False,
        bundle_ns: int = BUNDLE_NS,
    ) -> None:
        self._max_runs = max_runs
        self._explain = explain or (lambda *arguments: RuntimeError(str(arguments)))
        self._delivery = Delivery(in_order, keeps_failed)
        self.add_portion, self.last_items = self._delivery.add_portion, self._delivery.last_items
        self._bounds = bounds = Bounds(num_workers, max_queue_size, bundle_ns)
        self.bound, self.bundle, self.load, self.is_away = bounds.bound, bounds.bundle, bounds.load, bounds.is_away
        self._loads = loads = WorkerLoads(stuck_ns=2 * bundle_ns)
        self.saw, self.unbegun_ns, self.may_relieve = loads.saw, loads.unbegun_ns, loads.may_relieve
        self.ticket, self.take_back, self.ready_workers = loads.ticket, loads.take_back, loads.ready_workers
        self.retire, self.retire_also, self.may_go = loads.retire, loads.retire_also, loads.may_go
        self.resize, self._passes = self._bounds.resize, (passes := Passes())
        self.ahead, self.cut = passes.ahead, passes.cut
        self._again: list[int] = []  # heap of tickets to be sent again
        self._deaths: dict[int, list[Any]] = {}  # {ticket: the causes of death of the workers that ran its job}
        self._suspects: set[int] = set()  # tickets that were running when several workers died together
        self._repeats: dict[int, int] = {}  # {ticket being retried: earlier runs of its job}
        self._repeated: list[tuple[int, Any]] = []  # (index, result) of finished retries
        self.parked = WaitingForMemory(passes, self._delivery, self._bounds, self._again, self._repeats)

    # -- the consumer's side

    @property
    def is_idle(self) -> bool:
        """True if no job is with a worker or waits to be sent again."""
        return not self._loads.num_out and not self._again

    def begin(self, epoch: int, length: int, is_open: bool = False, order: Sequence[int] | None = None) -> None:
        """Begin a pass. If the pass was computed ahead, keep its finished batches.

        ``order`` holds the indices of the pass, in a sequence that does not change. Its batches are then delivered in
        this order, whatever ``in_order`` says. For an open pass, ``order`` is empty: each added job brings its index.
        """
        if self._repeats:  # a Ctrl-C interrupted the wait for a retry
            self.revoke()
        if self._passes.is_delivered:
            self._passes.end_current()
        new_pass = EnginePass(epoch, length, 0, is_open, order)
        if not self._passes.begins_with(new_pass):
            self.revoke()
            self._passes.append(new_pass)
        self._passes.is_reading = True

    @property
    def may_look_ahead(self) -> bool:
        """True if the next pass may start, because all jobs of the current one were sent and no pass follows it yet."""
        return self._passes.may_look_ahead

    def add(self, number: int, index: int, payload: Any) -> None:
        """Add job ``number`` to the open pass: see :meth:`EnginePass.add`."""
        self._passes.current.add(number, index, payload)

    def revoke(self) -> None:
        """Forget all passes and cancel their jobs, because the loop has left a pass early, or the data have changed."""
        self._loads.revoke()
        self._passes.clear()
        self._delivery.clear(head=self._passes.next)
        for each in (self._again, self._deaths, self._suspects, self._repeats, self._repeated, self.parked):
            each.clear()

    def take_outcomes(self) -> list[tuple[int, Any]]:
        """Return the results to hand over to the consumer now, in this order, as [(index of the batch, result)]."""
        if self._passes.is_reading and self._delivery.has_any:
            self._delivery.deliver(self._passes.current)
        return self._delivery.take()

    def repeat(self, index: int, runs: int) -> None:
        """Run the job of batch ``index`` again, whose failure after ``runs`` runs was delivered to the consumer."""
        ticket = self._passes.current.ticket(index)
        if ticket not in self._repeats:  # otherwise a Ctrl-C interrupted the wait for this retry
            self._repeats[ticket] = runs
            heapq.heappush(self._again, ticket)

    def forget(self, index: int) -> None:
        """Release the input of batch ``index`` of this pass, whose job has failed and will not be retried."""
        self._passes.current.payloads.pop(self._passes.current.ticket(index), None)

    def take_repeated(self) -> list[tuple[int, Any]]:
        """Return the results of the retries finished since the last call, as [(index of the batch, result)]."""
        repeated, self._repeated = self._repeated, []
        return repeated

    # -- the workers' side

    def started(self, worker: int) -> None:
        """Add a worker, which may be sent jobs from now on."""
        self._loads.by_worker[worker] = WorkerLoad()

    def ready(self, worker: int) -> None:
        """Record that a worker has loaded its replica (its copy of the sequence), and runs jobs now."""
        self._loads.by_worker[worker].is_ready = True

    def finish(self, ticket: int, result: Any, job_ns: int = 0, nbytes: int = 0) -> None:
        """Record the ``result`` of the job with this ``ticket``, which is no longer with a worker."""
        if job_ns:
            self._bounds.learn(job_ns, nbytes + self._delivery.num_bytes_of_portions(ticket))
        if self._deaths:
            self._deaths.pop(ticket, None)
            self._suspects.discard(ticket)
        if ticket == self.parked.trying:
            self.parked.fitted()
        if ticket in self._repeats:
            del self._repeats[ticket]
            current = self._passes.of(ticket)
            self._repeated.append((current.index(ticket), self._delivery.whole(ticket, result)))
            self._delivery.release(current, ticket, result)
        else:
            self._delivery.finished[ticket] = result

    def place_of(self, ticket: int | None) -> tuple[int, int]:
        """Return (epoch, index) of the batch with this ``ticket``; (-1, -1) if ``ticket`` is None."""
        if ticket is None:
            return -1, -1
        at = self._passes.of(ticket)
        return at.epoch, at.index(ticket)

    def epoch(self) -> int:
        """Return the epoch being read or computed ahead; -1 if there is none."""
        return -1 if self._passes.is_empty else self._passes.current.epoch

    def runs_before(self, ticket: int) -> int:
        """Return how many runs of the job with this ``ticket`` have failed, or were ended by the death of a worker."""
        return len(self._deaths.get(ticket, ())) + self._repeats.get(ticket, 0)

    def workers(self) -> list[int]:
        """Return the ids of the workers that exist."""
        return list(self._loads.by_worker)

    @property
    def cancelled(self) -> dict[int, int]:
        """The jobs to cancel, as {worker: number under which the last of them was sent}. The caller clears it."""
        return self._loads.cancelled

    def died(self, worker: int, running: int, cause: Any = None, with_others: bool = False) -> None:
        """Remove a worker that has died. Send its jobs again, but give up the job it died in after ``max_runs`` runs.
        ``running`` is the number under which that job was sent, 0 if there was none. With ``with_others``, several jobs
        may be the cause, e.g. because all workers died together: each is then run alone before it is given up."""
        for sending, ticket in self._loads.lose(worker).items():
            if sending == running:
                causes = self._deaths.setdefault(ticket, [])
                causes.append(cause)
                is_certain = not with_others or ticket in self._suspects
                if with_others:
                    self._suspects.add(ticket)
                if is_certain and self.runs_before(ticket) >= self._max_runs:
                    at = self._passes.of(ticket)
                    error = self._explain(at.epoch, at.index(ticket), len(causes), causes, self._bounds.load())
                    self.finish(ticket, Result(Failure(error, self.runs_before(ticket))))
                    continue
            heapq.heappush(self._again, ticket)

    # -- decisions

    def room(self, num_untaken: int) -> int:
        """Return how many more jobs may be sent while ``num_untaken`` batches wait for the consumer to take them."""
        return self.bound() - num_untaken - len(self._delivery.finished) - self._loads.num_out - len(self._again)

    def wanted_room(self) -> int | None:
        """Return how many jobs :meth:`room` must allow before new jobs are sent; None if none are to be sent."""
        if self._passes.is_all_sent or self.parked:
            return None
        return 1 if self._loads.any_idle() else max(1, self.bundle() // 2)

    def plan(self, num_untaken: int) -> list[Send]:
        """Return the jobs to send now, as [(worker, jobs)], while ``num_untaken`` batches wait for the consumer."""
        sends = self._resend()
        if self._again or self._suspects or self.parked:
            return sends  # jobs that the consumer waits for come before new ones
        bundle = self._bounds.bundle_behind(self._passes.num_sent)
        # Each worker gets a bundle to work on, then a second one that waits; workers with the fewest jobs come first.
        for share in (1, 2):
            for worker, load in self._loads.by_load():
                has, room = len(load.jobs), self.room(num_untaken)
                if has > (share - 1) * bundle or (share == 2 and not load.is_ready) or load.is_stuck:
                    continue
                if has and room < bundle // 2:
                    continue  # not worth a message: the worker still has jobs
                tickets = self._passes.fresh(min(share * bundle - has, room))
                if tickets:
                    sends.append((worker, [self._send(load, ticket) for ticket in tickets]))
        return sends

    def _resend(self) -> list[Send]:
        """Return messages that send jobs again, one job to a worker, so that a job that ends its worker is identified.
        While a job is suspected, because several workers died together, run only one job at a time."""
        sends: list[Send] = []
        if self._suspects and self._loads.num_out:
            return sends
        if self._again:
            is_any_ready = self._loads.any_ready()
            for worker, load in self._loads.by_load():
                if self._again and not load.jobs and (load.is_ready or not is_any_ready):
                    sends.append((worker, [self._send(load, heapq.heappop(self._again))]))
                    if self._suspects:
                        break
        return sends

    def _send(self, load: WorkerLoad, ticket: int) -> JobRow:
        at = self._passes.of(ticket)
        payload = at.payloads[ticket] if at.is_open else None
        return JobRow(self._loads.send(load, ticket), at.epoch, at.index(ticket), self.runs_before(ticket), payload)

    def to_relieve(self, now_ns: int) -> dict[int, int]:
        """Return the stuck workers, as {worker: the number under which the last of its waiting jobs was sent}.
        The caller cancels each worker's jobs up to this number, calls ``saw`` again, and then :meth:`relieve`."""
        return self._loads.to_relieve(now_ns, self.bundle())

    def relieve(self, stuck: Iterable[int]) -> list[Send]:
        """Move the waiting jobs of ``stuck`` workers to other workers. Return [(other worker, jobs to send to it)]."""
        loads = self._loads.by_worker
        return [
            (helper, [self._send(loads[helper], ticket) for ticket in tickets])
            for helper, tickets in self._loads.relieve(stuck)
        ]

    def cancelled_by(self, worker: int, sending: int) -> None:
        """Record that a worker has skipped a cancelled job. Send the job again, unless it was moved or revoked."""
        ticket = self._loads.take_back(worker, sending)
        if ticket is not None:
            heapq.heappush(self._again, ticket)

    def check(self) -> None:
        """Assert that each job that was sent and not yet delivered is in exactly one place. For tests."""
        _check(self._loads, self._delivery, self._passes, [*self._again, *self.parked.waiting], self._repeats)


def _check(
    loads: WorkerLoads, delivery: Delivery, passes: Passes, not_sent: list[int], repeats: dict[int, int]
) -> None:
    out = [ticket for load in loads.by_worker.values() for ticket in load.jobs.values()]
    assert len(out) == loads.num_out, (out, loads.num_out)
    everywhere = [ticket for ticket in [*delivery.finished, *not_sent, *out] if ticket not in repeats]
    assert len(everywhere) == len(set(everywhere)), everywhere
    if not passes.is_empty and delivery.in_order:
        first = max(delivery.head, passes.current.first)
        assert set(everywhere) == set(range(first, passes.next)), (everywhere, first, passes.next)
