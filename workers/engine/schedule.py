"""Who computes which batch, and when: the engine's decisions, as a pure state machine.

Events go in as method calls (:meth:`Schedule.finish`, :meth:`~Schedule.died`, ...), time comes as an argument, and
:meth:`Schedule.plan` says what to send to whom. Nothing here does I/O, sleeps, or knows what a batch is.

Words:

- A *pass* is one epoch's worth of batches in the order they are delivered. The consumer reads one pass at a time;
  the pass behind it may be worked on already (``ahead``).
- A *ticket* is one batch of a pass, numbered on through all passes: the order of delivery.
- A *sending* is the number under which a ticket goes to a worker. A ticket is with one worker at a time, but may be
  sent more than once: again after its worker died, or to another one because the first is stuck in something else.
  Batches are the same bytes whoever computes them, so a result counts only under its ticket's latest sending.

Invariants (asserted by :meth:`Schedule.check`):

- each ticket below ``Passes.next`` and not yet delivered is in exactly one place: finished, to be sent again, parked
  (see :mod:`workers.engine.waiting_for_memory`), or with one worker;
- finished + with workers + to be sent again + delivered but not taken <= the bound, when something new is sent;
- a pass is delivered once, whole, and in order (or as it comes, if not ``in_order``).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from .bounds import BUNDLE_NS, Bounds, QueueLoad
from .delivery import Delivery, Failure, Result
from .passes import EnginePass, Passes
from .waiting_for_memory import WaitingForMemory
from .worker_loads import WorkerLoad, WorkerLoads


class JobRow(NamedTuple):
    """A job as it is sent: JobRow(17, 0, 4, 0, None)."""

    sending: int
    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    attempt: int
    payload: Any  # what it works on; None: the sequence's batch of that index


Send = tuple[int, list[JobRow]]  # a message: (worker, rows), which are then with that worker


class Schedule:
    """See the module's text.

    Args:
        num_workers: how many workers share the work.
        max_queue_size: of batches finished or in work ahead of the consumer; None: see :class:`Bounds`.
        in_order: deliver in the order of indices, not as batches come.
        max_runs: a ticket whose worker died is given up when its job was begun this often.
        explain: builds the exception for a batch whose job ended its worker too often, from (epoch, index, how
            often, causes of the deaths, what the pool holds in memory).
        keeps_failed: what failed may be repeated, so what its job works on is kept until :meth:`forget`.
        bundle_ns: jobs that together take less travel together.
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
        self._explain = explain or (lambda epoch, index, deaths, causes, load: RuntimeError(f"{deaths} {causes}"))
        self._delivery = Delivery(in_order, keeps_failed)
        self._bounds = bounds = Bounds(num_workers, max_queue_size, bundle_ns)
        self.bound, self.bundle, self.load, self.is_away = bounds.bound, bounds.bundle, bounds.load, bounds.is_away
        self._loads = loads = WorkerLoads(stuck_ns=2 * bundle_ns)
        self.saw, self.unbegun_ns, self.may_relieve = loads.saw, loads.unbegun_ns, loads.may_relieve
        self.ticket, self.take_back, self.ready_workers = loads.ticket, loads.take_back, loads.ready_workers
        self.resize, self.retire, self.may_go = self._bounds.resize, loads.retire, loads.may_go
        self._passes = passes = Passes()
        self.ahead, self.cut = passes.ahead, passes.cut
        self._again: list[int] = []  # heap of tickets to be sent again
        self._deaths: dict[int, list[Any]] = {}  # {ticket: the causes of death of the workers it was running in}
        self._suspects: set[int] = set()  # tickets that were running when several workers died at once
        self._repeats: dict[int, int] = {}  # {ticket: runs of its job before}, to be handed over again
        self._repeated: list[tuple[int, Any]] = []  # their (index, result)
        self.parked = WaitingForMemory(passes, self._delivery, self._bounds, self._again, self._repeats)

    # -- the consumer's side

    @property
    def is_idle(self) -> bool:
        """No worker has anything to do, and nothing is left to send."""
        return not self._loads.num_out and not self._again

    def begin(self, epoch: int, length: int, is_open: bool = False, order: Sequence[int] | None = None) -> None:
        """The consumer starts to read a pass. What was worked on ahead stays if it is that pass.

        ``order``: the indices of its batches; it is then delivered in this order, whatever ``in_order`` says. Any
        sequence that does not change; of an open pass, an empty one: the jobs that are added bring their indices.
        """
        if self._repeats:  # a Ctrl-C came while one was waited for
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
        """All jobs of the pass being read are sent, and none of a later one."""
        return self._passes.may_look_ahead

    def add(self, number: int, index: int, payload: Any) -> None:
        """Job ``number`` of the pass being read, which is open; unless it was added before."""
        self._passes.current.add(number, index, payload)

    def revoke(self) -> None:
        """Forget all passes: the consumer left one in the middle, or what the workers know is out of date."""
        self._loads.revoke()
        self._passes.clear()
        self._delivery.clear(head=self._passes.next)
        self._again.clear()
        self._deaths.clear()
        self._suspects.clear()
        self._repeats.clear()
        self._repeated.clear()
        self.parked.clear()

    def take_outcomes(self) -> list[tuple[int, Any]]:
        """[(index, result)] that are the consumer's now, in the order of delivery."""
        if self._passes.is_reading and self._delivery.finished:
            self._delivery.deliver(self._passes.current)
        return self._delivery.take()

    def repeat(self, index: int, runs: int) -> None:
        """Batch ``index`` of the pass being read was delivered as a failure: try it again, beside the others."""
        ticket = self._passes.current.ticket(index)
        if ticket not in self._repeats:  # else a Ctrl-C came while it was waited for
            self._repeats[ticket] = runs
            heapq.heappush(self._again, ticket)

    def forget(self, index: int) -> None:
        """Batch ``index`` of the pass being read, which has failed, will not be repeated."""
        self._passes.current.payloads.pop(self._passes.current.ticket(index), None)

    def take_repeated(self) -> list[tuple[int, Any]]:
        """[(index, result)] of what was repeated."""
        repeated, self._repeated = self._repeated, []
        return repeated

    # -- the workers' side

    def started(self, worker: int) -> None:
        """A worker exists, and may be sent jobs."""
        self._loads.by_worker[worker] = WorkerLoad()

    def ready(self, worker: int) -> None:
        """It has loaded what it works on."""
        self._loads.by_worker[worker].is_ready = True

    def finish(self, ticket: int, result: Any, job_ns: int = 0, nbytes: int = 0) -> None:
        """``result`` is what has become of a ticket that no worker has any more."""
        if job_ns:
            self._bounds.learn(job_ns, nbytes)
        if self._deaths:
            self._deaths.pop(ticket, None)
            self._suspects.discard(ticket)
        if ticket == self.parked.trying:
            self.parked.fitted()
        if ticket in self._repeats:
            del self._repeats[ticket]
            current = self._passes.of(ticket)
            self._repeated.append((current.index(ticket), result))
            self._delivery.release(current, ticket, result)
        else:
            self._delivery.finished[ticket] = result

    def place_of(self, ticket: int | None) -> tuple[int, int]:
        """(epoch, index) of the batch that a ticket stands for; (-1, -1) for None."""
        if ticket is None:
            return -1, -1
        at = self._passes.of(ticket)
        return at.epoch, at.index(ticket)

    def epoch(self) -> int:
        """Of the pass being read, or -1."""
        return -1 if self._passes.is_empty else self._passes.current.epoch

    def runs_before(self, ticket: int) -> int:
        """How often its job was begun before."""
        return len(self._deaths.get(ticket, ())) + self._repeats.get(ticket, 0)

    def workers(self) -> list[int]:
        """The workers that exist."""
        return list(self._loads.by_worker)

    @property
    def cancelled(self) -> dict[int, int]:
        """{worker: sending}: it need not begin jobs up to this sending any more. The caller clears it."""
        return self._loads.cancelled

    def died(self, worker: int, running: int, cause: Any = None, with_others: bool = False) -> None:
        """A worker is no more. ``running`` is the sending of the job it was in, 0 for none. ``with_others``: all
        died at once, and the job of any may have done it; each is then run with nothing beside it before it is
        given up."""
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
        """How many more jobs may be sent, with ``num_untaken`` delivered batches not yet taken."""
        return self.bound() - num_untaken - len(self._delivery.finished) - self._loads.num_out - len(self._again)

    def wanted_room(self) -> int | None:
        """How much room it takes until something can be sent; None: nothing is left to send, or nothing may be."""
        if self._passes.is_all_sent or self.parked:
            return None
        return 1 if self._loads.any_idle() else max(1, self.bundle() // 2)

    def plan(self, num_untaken: int) -> list[Send]:
        """What to send now."""
        sends = self._resend()
        if self._again or self._suspects or self.parked:
            return sends  # what the consumer waits for comes before what is new
        bundle = self._bounds.bundle_behind(self._passes.num_sent)
        # One bundle each to work on, then one each that waits behind it; whoever has least to do comes first.
        for share in (1, 2):
            for worker, load in self._loads.by_load():
                has, room = len(load.jobs), self.room(num_untaken)
                if has > (share - 1) * bundle or (share == 2 and not load.is_ready) or load.is_stuck:
                    continue
                if has and room < bundle // 2:
                    continue  # not worth a message: it has something to do
                tickets = self._passes.fresh(min(share * bundle - has, room))
                if tickets:
                    sends.append((worker, [self._send(load, ticket) for ticket in tickets]))
        return sends

    def _resend(self) -> list[Send]:
        """Send again what was with workers that died: one at a time and alone, so that a job which ends its worker
        is known for certain. While there are suspects, nothing else runs beside it."""
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
        """{worker: sending} of workers that are stuck in another job than that one, as they have just been seen. Each
        is to be told that it need not begin jobs up to that one, then looked at again."""
        return self._loads.to_relieve(now_ns, self.bundle())

    def relieve(self, stuck: Iterable[int]) -> list[Send]:
        """Give others what waits with the workers of :meth:`to_relieve`. What they have begun meanwhile they keep."""
        loads = self._loads.by_worker
        return [
            (helper, [self._send(loads[helper], ticket) for ticket in tickets])
            for helper, tickets in self._loads.relieve(stuck)
        ]

    def cancelled_by(self, worker: int, sending: int) -> None:
        """A worker has not run what was cancelled. What it was to keep, as it seemed to have begun, is sent again."""
        ticket = self._loads.take_back(worker, sending)
        if ticket is not None:
            heapq.heappush(self._again, ticket)

    def check(self) -> None:
        """Assert the invariants. For tests."""
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
