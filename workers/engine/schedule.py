"""Who computes which batch, and when: the engine's decisions, as a pure state machine.

Events go in as method calls (:meth:`Schedule.done`, :meth:`~Schedule.died`, ...), time comes as an argument, and
:meth:`Schedule.plan` says what to send to whom. Nothing here does I/O, sleeps, or knows what a batch is.

Words:

- A *pass* is one epoch's worth of batches in the order they are delivered. The consumer reads one pass at a time;
  the pass behind it may be worked on already (``ahead``).
- A *ticket* is one batch of a pass, numbered on through all passes: the order of delivery.
- A *serial* is one sending of a ticket to a worker. A ticket is with one worker at a time, but may be sent more
  than once: again after its worker died, or to another one because the first is stuck in something else. Batches
  are the same bytes whoever computes them, so a result counts only under its ticket's latest serial.

Invariants (asserted by :meth:`Schedule.check`):

- each ticket below ``_next`` and not yet delivered is in exactly one place: finished, to be sent again, or with
  one worker;
- finished + with workers + to be sent again + delivered but not taken <= the bound, when something new is sent;
- a pass is delivered once, whole, and in order (or as it comes, if not ``in_order``).
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

#: Results of jobs that take less than this travel together: a message then costs little against its jobs.
BUNDLE_NS = 4_000_000
MAX_BUNDLE = 128
#: A worker that has been in one job for this long keeps the others waiting that were sent along with it.
STUCK_NS = 20_000_000
#: One that begins none of its jobs for this long is stopped, or still starting: others take them.
UNBEGUN_NS = 1_000_000_000

# Where max_queue_size is left to us: enough for this much of work and of memory, within these bounds.
_AHEAD_NS = 50_000_000
_AHEAD_NBYTES = 64 << 20
_MAX_AHEAD = 1024


class Row(NamedTuple):
    """A job as it is sent: ``serial`` names the sending, (epoch, index) the batch."""

    serial: int
    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    attempt: int
    payload: Any


class Failure(NamedTuple):
    """The outcome of a ticket that has no batch."""

    error: BaseException
    runs: int = 1  # how often its job was begun


class Pass:
    """One epoch's worth of batches."""

    __slots__ = ("delivered", "epoch", "first", "is_open", "length", "order", "payloads")

    def __init__(
        self, epoch: int, length: int, first: int, is_open: bool = False, order: Sequence[int] | None = None
    ) -> None:
        self.epoch = epoch
        self.length = length  # in batches; grows while is_open
        self.first = first  # its first ticket
        self.is_open = is_open  # its jobs are handed in one by one
        # The indices of its batches, e.g. [3, 0, 7] or range(5, 9); None: 0, 1, 2, ... It may be a lazy sequence of
        # any length, so it is never gone through. That of an open pass is our own and grows.
        self.order: Sequence[int] | None = [] if is_open and order is not None else order
        self.payloads: dict[int, Any] = {}  # {ticket: what its job works on}, where is_open
        self.delivered = 0

    @property
    def end(self) -> int:
        return self.first + self.length

    def is_like(self, other: Pass) -> bool:
        """Whether it is of the same batches."""
        mine, others = ((each.epoch, each.length, each.is_open, each.order) for each in (self, other))
        return mine == others

    def index(self, ticket: int) -> int:
        """Which batch a ticket is for."""
        at = ticket - self.first
        return at if self.order is None else self.order[at]

    def ticket(self, index: int) -> int:
        """The one that is for batch ``index``."""
        return self.first + (index if self.order is None else self.order.index(index))


class _Worker:
    __slots__ = ("is_ready", "jobs", "running", "since_ns", "unbegun_since_ns", "wasted")

    def __init__(self) -> None:
        self.jobs: dict[int, int] = {}  # {serial: ticket}, in the order sent, e.g. {17: 4, 18: 5}
        self.is_ready = False
        self.running = 0  # the serial it was last seen in, 0 for none
        self.since_ns = 0
        self.unbegun_since_ns = 0  # since then it was seen to begin none of its jobs; 0: it does
        self.wasted = False  # it may still be in a job that nobody waits for


class Schedule:
    """See the module's text.

    Args:
        num_workers: how many workers share the work, for the size of bundles.
        max_queue_size: the bound on batches finished or in work ahead of the consumer; None: chosen from how
            long jobs take and how large batches are.
        in_order: deliver in the order of indices, not as batches come.
        max_runs: a ticket whose worker died is given up when its job was begun this often.
        explain: makes the error of a ticket that is given up, from (epoch, index, deaths, causes).
        keeps_failed: what failed may be repeated, so what its job works on is kept until :meth:`forget`.
    """

    def __init__(
        self,
        num_workers: int,
        max_queue_size: int | None = None,
        in_order: bool = True,
        max_runs: int = 3,
        explain: Callable[[int, int, int, list[Any]], BaseException] | None = None,
        keeps_failed: bool = False,
    ) -> None:
        self._num_workers = max(1, num_workers)
        self._max_queue_size = max_queue_size
        self._in_order = in_order
        self._max_runs = max_runs
        self._keeps_failed = keeps_failed
        self._explain = explain or (lambda epoch, index, deaths, causes: RuntimeError(f"{deaths} {causes}"))
        self._workers: dict[int, _Worker] = {}
        self._passes: deque[Pass] = deque()  # the one the consumer reads, then the one ahead
        self._is_reading = False  # the consumer reads the first pass; else it is only worked on
        self._next = 0  # the first ticket never sent
        self._head = 0  # in order: the first ticket not yet delivered
        self._finished: dict[int, Any] = {}  # {ticket: outcome}, not yet delivered
        self._again: list[int] = []  # heap of tickets to be sent again
        self._num_out = 0  # tickets that are with a worker
        self._deaths: dict[int, list[Any]] = {}  # {ticket: the causes of death of the workers it was running in}
        self._repeats: dict[int, int] = {}  # {ticket: runs of its job before}, to be handed over again
        self._repeated: list[tuple[int, Any]] = []  # their (index, outcome)
        self._serial = 0
        #: {worker: serial}: it need not begin jobs up to this serial any more. The caller clears it.
        self.cancelled: dict[int, int] = {}
        self._job_ns = 0.0  # moving average of a job's duration; 0: not known yet
        self._job_nbytes = 0.0
        self._outcomes: list[tuple[int, Any]] = []  # delivered since the last take_outcomes()

    # -- the consumer's side

    @property
    def is_idle(self) -> bool:
        """No worker has anything to do, and nothing is left to send."""
        return not self._num_out and not self._again

    def begin(self, epoch: int, length: int, is_open: bool = False, order: Sequence[int] | None = None) -> None:
        """The consumer starts to read a pass. What was worked on ahead stays if it is that pass.

        ``order``: the indices of its batches; it is then delivered in this order, whatever ``in_order`` says. Any
        sequence that does not change; of an open pass, an empty one: the jobs that are added bring their indices.
        """
        if self._repeats:  # a Ctrl-C came while one was waited for
            self.revoke()
        if self._is_reading and self.is_delivered:
            self._passes.popleft()
            self._is_reading = False
        begun = Pass(epoch, length, self._next, is_open, order)
        if self._is_reading or not self._passes or not self._passes[0].is_like(begun):
            self.revoke()
            begun.first = self._next
            self._passes.append(begun)
        self._is_reading = True

    @property
    def is_delivered(self) -> bool:
        """The pass being read was handed over whole."""
        return self._is_reading and self._passes[0].delivered == self._passes[0].length

    @property
    def may_look_ahead(self) -> bool:
        """All jobs of the pass being read are sent, and none of a later one."""
        return self._is_reading and len(self._passes) == 1 and self._next >= self._passes[0].end

    def ahead(self, epoch: int, length: int, order: Sequence[int] | None = None) -> None:
        """This pass comes next; its jobs may start when all of the one being read are sent."""
        first = self._passes[-1].end if self._passes else self._next
        self._passes.append(Pass(epoch, length, first, order=order))

    def add(self, number: int, index: int, payload: Any) -> None:
        """Job ``number`` of the pass being read, which is open; unless it was added before."""
        current = self._passes[0]
        if number == current.length:
            if isinstance(current.order, list):
                current.order.append(index)
            current.payloads[current.end] = payload
            current.length += 1

    def revoke(self) -> None:
        """Forget all passes: the consumer left one in the middle, or what the workers know is out of date."""
        for name, worker in self._workers.items():
            if worker.jobs:
                worker.wasted = True
                self.cancelled[name] = max(worker.jobs)
            worker.jobs.clear()
        self._next = max([self._next, *[each.end for each in self._passes]])
        self._head = self._next
        self._passes.clear()
        self._finished.clear()
        self._again.clear()
        self._num_out = 0
        self._deaths.clear()
        self._repeats.clear()
        self._repeated.clear()
        self._outcomes.clear()
        self._is_reading = False

    def take_outcomes(self) -> list[tuple[int, Any]]:
        """[(index, outcome)] that are the consumer's now, in the order of delivery."""
        if self._is_reading and self._finished:
            self._deliver()
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def repeat(self, index: int, runs: int) -> None:
        """Batch ``index`` of the pass being read was delivered as a failure: try it again, beside the others."""
        ticket = self._passes[0].ticket(index)
        if ticket not in self._repeats:  # else a Ctrl-C came while it was waited for
            self._repeats[ticket] = runs
            heapq.heappush(self._again, ticket)

    def forget(self, index: int) -> None:
        """Batch ``index`` of the pass being read, which has failed, will not be repeated."""
        self._passes[0].payloads.pop(self._passes[0].ticket(index), None)

    def take_repeated(self) -> list[tuple[int, Any]]:
        """[(index, outcome)] of what was repeated."""
        repeated, self._repeated = self._repeated, []
        return repeated

    # -- the workers' side

    def started(self, worker: int) -> None:
        """A worker exists, and may be sent jobs."""
        self._workers[worker] = _Worker()

    def ready(self, worker: int) -> None:
        self._workers[worker].is_ready = True

    def done(self, worker: int, serial: int, outcome: Any, ns: int = 0, nbytes: int = 0) -> bool:
        """A worker has finished a job. False: nobody waits for it any more."""
        state = self._workers[worker]
        state.wasted = False
        state.unbegun_since_ns = 0
        ticket = state.jobs.pop(serial, None)
        if ticket is None:
            return False
        self._num_out -= 1
        if ns:
            self._job_ns += (ns - self._job_ns) * (0.1 if self._job_ns else 1.0)
            self._job_nbytes += (nbytes - self._job_nbytes) * (0.1 if self._job_nbytes else 1.0)
        self._finish(ticket, outcome)
        return True

    def wants(self, worker: int, serial: int) -> bool:
        """Whether somebody waits for the result of this sending."""
        return serial in self._workers[worker].jobs

    def place_of(self, worker: int, serial: int) -> tuple[int, int]:
        """(epoch, index) of what a worker was sent under ``serial``; (-1, -1) for what nobody waits for."""
        ticket = self._workers[worker].jobs.get(serial)
        if ticket is None:
            return -1, -1
        at = self._pass_of(ticket)
        return at.epoch, at.index(ticket)

    def runs_before(self, worker: int, serial: int) -> int:
        """How often the job of what a worker was sent under ``serial`` was begun before."""
        ticket = self._workers[worker].jobs.get(serial)
        return 0 if ticket is None else self._runs(ticket)

    def _runs(self, ticket: int) -> int:
        return len(self._deaths.get(ticket, ())) + self._repeats.get(ticket, 0)

    def workers(self) -> list[int]:
        """The workers that exist."""
        return list(self._workers)

    def died(self, worker: int, running: int, cause: Any = None) -> None:
        """A worker is no more. ``running`` is the serial of the job it was in, 0 for none."""
        jobs = self._workers.pop(worker).jobs
        self._num_out -= len(jobs)
        for serial, ticket in jobs.items():
            if serial == running:
                causes = self._deaths.setdefault(ticket, [])
                causes.append(cause)
                if self._runs(ticket) >= self._max_runs:
                    at = self._pass_of(ticket)
                    error = self._explain(at.epoch, at.index(ticket), len(causes), causes)
                    self._finish(ticket, (Failure(error, self._runs(ticket)), 0, 0))
                    continue
            heapq.heappush(self._again, ticket)

    def saw(self, worker: int, running: int, since_ns: int, now_ns: int = 0) -> None:
        """A worker is in the job of serial ``running`` since ``since_ns`` (0, 0: in none)."""
        state = self._workers[worker]
        state.running, state.since_ns = running, since_ns
        if running:
            state.unbegun_since_ns = 0
        elif state.jobs and not state.unbegun_since_ns:
            state.unbegun_since_ns = now_ns

    def unbegun_ns(self, worker: int, now_ns: int) -> int:
        """For how long a worker that is ready was seen to begin none of its jobs."""
        state = self._workers[worker]
        return now_ns - state.unbegun_since_ns if state.unbegun_since_ns and state.is_ready else 0

    # -- decisions

    def bound(self) -> int:
        """How many batches may be finished or in work ahead of the consumer."""
        if self._max_queue_size is not None:
            return self._max_queue_size
        least = 2 * self._num_workers + 2
        if not self._job_ns:
            return least
        enough = self._num_workers * _AHEAD_NS / self._job_ns
        fits = _AHEAD_NBYTES / max(self._job_nbytes, 1.0)
        return int(max(least, min(enough, fits, _MAX_AHEAD)))

    def bundle(self) -> int:
        """How many jobs to send together."""
        if not self._job_ns:
            return 1
        return int(max(1, min(MAX_BUNDLE, BUNDLE_NS / self._job_ns, self.bound() // (2 * self._num_workers))))

    def room(self, num_untaken: int) -> int:
        """How many more jobs may be sent, with ``num_untaken`` delivered batches not yet taken."""
        return self.bound() - num_untaken - len(self._finished) - self._num_out - len(self._again)

    def wanted_room(self) -> int | None:
        """How much room it takes until something can be sent; None: nothing is left to send."""
        if not any(each.end > self._next for each in self._passes):
            return None
        return 1 if any(not worker.jobs for worker in self._workers.values()) else max(1, self.bundle() // 2)

    def plan(self, num_untaken: int) -> list[tuple[int, list[Row]]]:
        """What to send now: [(worker, rows)], each a message. The rows are then with that worker."""
        sends = self._repeat()
        if self._again:
            return sends  # what the consumer waits for comes before what is new
        bundle = self.bundle()
        # One bundle each to work on, then one each that waits behind it; whoever has least to do comes first.
        for share in (1, 2):
            for name, worker in self._by_load():
                has, room = len(worker.jobs), self.room(num_untaken)
                if has > (share - 1) * bundle or (share == 2 and not worker.is_ready):
                    continue
                if has and room < bundle // 2:
                    continue  # not worth a message: it has something to do
                tickets = self._fresh(min(share * bundle - has, room))
                if tickets:
                    sends.append((name, [self._send(worker, ticket) for ticket in tickets]))
        return sends

    def _by_load(self) -> list[tuple[int, _Worker]]:
        return sorted(self._workers.items(), key=lambda each: (each[1].wasted, len(each[1].jobs)))

    def _repeat(self) -> list[tuple[int, list[Row]]]:
        """Send again what was with workers that died: one at a time and alone, so that a job which ends its worker
        is known for certain."""
        sends: list[tuple[int, list[Row]]] = []
        if self._again:
            is_any_ready = any(worker.is_ready for worker in self._workers.values())
            for name, worker in self._by_load():
                if self._again and not worker.jobs and (worker.is_ready or not is_any_ready):
                    sends.append((name, [self._send(worker, heapq.heappop(self._again))]))
        return sends

    def _fresh(self, count: int) -> list[int]:
        """Up to ``count`` tickets that were never sent."""
        tickets: list[int] = []
        for each in self._passes:
            some = min(count - len(tickets), each.end - self._next)
            if some > 0:
                tickets.extend(range(self._next, self._next + some))
                self._next += some
        return tickets

    def _send(self, worker: _Worker, ticket: int) -> Row:
        self._serial += 1
        self._num_out += 1
        worker.jobs[self._serial] = ticket
        at = self._pass_of(ticket)
        payload = at.payloads[ticket] if at.is_open else None
        return Row(self._serial, at.epoch, at.index(ticket), self._runs(ticket), payload)

    def relieve(self, now_ns: int) -> list[tuple[int, list[Row]]]:
        """Give idle workers what waits with a worker that is stuck in another job, as it was just :meth:`saw`.

        Returns:
            As :meth:`plan`.
        """
        idle = [name for name, worker in self._workers.items() if not worker.jobs and worker.is_ready]
        sends: list[tuple[int, list[Row]]] = []
        for name, worker in self._workers.items():
            if not idle:
                break
            is_stuck = worker.running and now_ns - worker.since_ns >= STUCK_NS
            is_stopped = worker.unbegun_since_ns and now_ns - worker.unbegun_since_ns >= UNBEGUN_NS
            if not worker.jobs or not (is_stuck or is_stopped):
                continue
            waiting = {serial: ticket for serial, ticket in worker.jobs.items() if serial != worker.running}
            if not waiting:
                continue
            for serial in waiting:
                del worker.jobs[serial]
            self._num_out -= len(waiting)
            self.cancelled[name] = max(waiting)
            helper = idle.pop()
            sends.append((helper, [self._send(self._workers[helper], ticket) for ticket in waiting.values()]))
        return sends

    def may_relieve(self) -> bool:
        """Whether it is worth looking soon at what the workers are in."""
        workers = self._workers.values()
        return any(not each.jobs and each.is_ready for each in workers) and any(
            len(each.jobs) > (0 if each.wasted else 1) or (each.jobs and each.unbegun_since_ns) for each in workers
        )

    # -- tickets

    def _pass_of(self, ticket: int) -> Pass:
        first = self._passes[0]
        return first if ticket < first.end else self._passes[1]

    def _finish(self, ticket: int, outcome: Any) -> None:
        self._deaths.pop(ticket, None)
        if ticket in self._repeats:
            del self._repeats[ticket]
            current = self._pass_of(ticket)
            self._repeated.append((current.index(ticket), outcome))
            self._release(current, ticket, outcome)
        else:
            self._finished[ticket] = outcome

    def _deliver(self) -> None:
        """Hand over what may be: everything of the pass being read, or its next in order."""
        current = self._passes[0]
        finished = self._finished
        if self._in_order or current.order is not None:
            while self._head in finished and self._head < current.end:
                self._hand_over(current, self._head)
                self._head += 1
        else:
            for ticket in [ticket for ticket in finished if ticket < current.end]:
                self._hand_over(current, ticket)

    def _hand_over(self, current: Pass, ticket: int) -> None:
        outcome = self._finished.pop(ticket)
        self._outcomes.append((current.index(ticket), outcome))
        self._release(current, ticket, outcome)
        current.delivered += 1

    def _release(self, current: Pass, ticket: int, outcome: Any) -> None:
        """What the job of ``ticket`` works on is not needed any more, unless it may be repeated."""
        if not (self._keeps_failed and isinstance(outcome, tuple) and outcome and isinstance(outcome[0], Failure)):
            current.payloads.pop(ticket, None)

    def check(self) -> None:
        """Assert the invariants. For tests."""
        out = [ticket for worker in self._workers.values() for ticket in worker.jobs.values()]
        assert len(out) == self._num_out, (out, self._num_out)
        everywhere = [ticket for ticket in [*self._finished, *self._again, *out] if ticket not in self._repeats]
        assert len(everywhere) == len(set(everywhere)), everywhere
        if self._passes and self._in_order:
            first = max(self._head, self._passes[0].first)
            assert set(everywhere) == set(range(first, self._next)), (everywhere, first, self._next)
