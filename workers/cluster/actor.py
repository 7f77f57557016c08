"""Implements a worker in a Ray cluster: the actor, which computes jobs, and the consumer's handle to it.

An actor is an object in a process of its own, on any node (machine). It runs the jobs on its replica, which is its own
copy of the sequence. The actor uses nothing of Ray but the id of its node.
"""

from __future__ import annotations

import importlib
import pickle
import sys
import threading
import time
import traceback
from collections import deque
from typing import Any, NamedTuple

import numpy as np

from workers.batch.label import check_replica, check_sending
from workers.batch.shared_memory import address_of
from workers.batch.tree import ALIGNMENT, dumps, flatten, unflattener
from workers.engine.executor import Stuck
from workers.engine.remote_errors import RemoteFailure, pack
from workers.engine.schedule import JobRow
from workers.job import seeding
from workers.job.context import Stages, begin_marks, mark, stages
from workers.job.cores import Cores, CoreUse
from workers.job.notes import with_notes
from workers.job.portions import PortionSender
from workers.process import program_settings, replica
from workers.process.logs import Records
from workers.process.messages import Logged


class Items(NamedTuple):
    """The batches of one job, taken apart by ``batch.tree``: their arrays and, pickled, everything else."""

    arrays: list[np.ndarray[Any, Any]]
    rest: bytes  # the pickled (spec, leaves other than arrays)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)

    def together(self) -> Any:
        """Rebuild the batches of the job, and return them. Runs in: consumer."""
        spec, rest = pickle.loads(self.rest)
        return unflattener(spec)(iter(self.arrays), iter(rest))


def _apart(items: list[Any]) -> Items:
    """Take ``items`` apart. Runs in: actor."""
    arrays: list[np.ndarray[Any, Any]] = []
    rest: list[Any] = []
    spec = flatten(items, arrays, rest)
    return Items(arrays, dumps((spec, rest)))


class Answer(NamedTuple):
    """The result of one job, as an actor returns it: the batches or the error, and figures such as the duration."""

    sending: int  # the number under which the job was sent
    value: Items | RemoteFailure
    job_ns: int
    nbytes: int
    stages: Stages
    before: Items | None = None  # the items that the job has made before its error

    def items(self, sending: int) -> Any:
        """Return the batches of the job. Runs in: consumer.

        Raise IntegrityError unless this Answer is for the job that was sent under the number ``sending``.
        """
        check_sending(self.sending, sending)
        assert isinstance(self.value, Items)
        return self.value.together()


class Told(NamedTuple):
    """An actor's reply to a call: the result, the log records since the last call, and the core use of its jobs."""

    value: Any
    logged: list[Logged]  # since the last call
    cores: CoreUse = CoreUse(0, 0)  # of the jobs in this call


class Actor:
    """A worker, as a Ray actor. One thread runs the jobs; another, the control thread, answers calls about them."""

    def __init__(self, number: int) -> None:
        seeding.enter_worker_process()
        self._number = number
        self._records = Records(number)
        self._records.install()
        self._cores: Cores | None = None  # made in the thread that runs the jobs
        self._task: Any = None
        self._replica = -1
        self._stream = seeding.Stream(0)
        self._unsettled: program_settings.Settings = {}
        self._cancelled = 0
        self._thread = 0  # id of the thread that runs the jobs

    def cancel(self, sending: int) -> None:
        """Skip jobs that have not started, up to the one sent under number ``sending``. Runs in: the control thread."""
        self._cancelled = sending

    def node(self) -> str:
        """Return Ray's id of the node (machine) on which this actor runs. Runs in: the control thread."""
        ray: Any = importlib.import_module("ray")
        return str(ray.get_runtime_context().get_node_id())

    def stack(self) -> str:
        """Return the stack, as text, of the thread that runs jobs; "" before any job. Runs in: the control thread."""
        frame = sys._current_frames().get(self._thread)
        return "".join(traceback.format_stack(frame)) if frame else ""

    def load(
        self, number: int, message: replica.ParcelMessage, around: program_settings.ProgramSettings, *pieces: Any
    ) -> Told:
        """Load the sequence for all later jobs. ``number`` is the number of this replica, which jobs name.

        Args:
            message: where in ``pieces`` the parts of the pickled sequence are.
            around: settings of the program, such as warning filters, which jobs need too.
            pieces: the memory of the pickled sequence, as arrays of bytes in the object store of this node.

        Returns:
            A Told. Its value is None, or a RemoteFailure if loading has failed.
        """
        failure = self._load(message, around, pieces)
        if failure is None:
            self._replica = number
        return Told(failure, self._logged())

    def _load(
        self, message: replica.ParcelMessage, around: program_settings.ProgramSettings, pieces: tuple[Any, ...]
    ) -> RemoteFailure | None:
        try:
            is_new = self._task is None
            if is_new:
                program_settings.before_imports(around)
            memories = map(_mapped, pieces, message.private)
            self._task = replica.made_of(message, [*memories])
            if is_new:
                self._unsettled = program_settings.apply(around)
                self._task.init_worker(self._number)
            self._stream = self._task.stream(self._task.generators())
        except BaseException as error:  # the user's own modules run here
            return pack(error)
        return None

    def run(self, replica: int, rows: list[tuple[Any, ...]]) -> Told:
        """Run jobs, each given as the plain tuple of a JobRow, on the replica with the number ``replica``.

        Returns:
            A Told. Its value is a list with an Answer for each job, or None for a cancelled one. The list is one object
            in Ray's store, because putting and getting an object takes 2 ms or more.
        """
        self._cores = self._cores or Cores()
        before = self._cores.use()
        answers = [self._job(JobRow._make(row), replica) for row in rows]
        return Told(answers, self._logged(), self._cores.use().since(before))

    def _logged(self) -> list[Logged]:
        return list(iter(self._records.take, None))

    def _job(self, row: JobRow, replica: int) -> Answer | None:
        """Run one job, and return its Answer, which carries any error, even SystemExit; None if it was cancelled."""
        sending, epoch, index, attempt, payload = row
        if sending <= self._cancelled:
            return None
        self._thread = threading.get_ident()
        start_ns, marks, nbytes = time.monotonic_ns(), begin_marks(), 0
        value: Items | RemoteFailure
        yielded: list[Any] = []
        try:
            check_replica(self._replica, replica, epoch, index)
            job = seeding.Job(epoch, index, attempt, self._number)
            item = None
            if payload is not None:
                self._enter(job)
                item = (pickle.loads(payload),)
            portions = PortionSender(yielded.extend)
            items = seeding.run_seeded(
                self._stream,
                lambda: self._enter(job),
                lambda: with_notes(self._task.run, index, item, portions),
            )
            mark("transport")
            value = _apart(items)
            nbytes = value.nbytes
        except BaseException as error:
            value = pack(error)
        finally:
            seeding.leave_job()
        end_ns = time.monotonic_ns()
        before = None
        try:
            before = _apart(yielded) if yielded else None
        except BaseException as error:
            value = pack(error)
        return Answer(sending, value, end_ns - start_ns, nbytes, stages(marks, end_ns), before)

    def _enter(self, job: seeding.Job) -> None:
        if self._unsettled:
            self._unsettled = program_settings.settle(self._unsettled)
        seeding.enter_job(self._stream, job)


def _mapped(piece: Any, is_private: bool) -> memoryview:
    """Return a view of the bytes ``piece`` or, if ``is_private``, of a copy, as jobs may write to tensors in it."""
    if not is_private:
        return memoryview(piece)
    space = np.empty(len(piece) + ALIGNMENT, np.uint8)
    start = -address_of(space) % ALIGNMENT
    copy: Any = space[start : start + len(piece)]
    copy[:] = piece
    return memoryview(copy).toreadonly()


class ActorHandle:
    def __init__(self, number: int, handle: Any) -> None:
        self.number = number
        self.handle = handle
        self.is_ready = False
        self.stuck: Stuck | None = None
        self.stack = ""  # the stack that it has reported last
        self.sent_ns: dict[int, int] = {}  # {sending of an unanswered job: when it was sent}, in order of sending
        self.bundles: deque[list[int]] = deque()  # the same jobs, grouped by call, e.g. [[41, 42], [43]]
        self.since_ns = 0  # when it became ready, or last answered a call of run()
        self.node = ""  # id of its node; "": not known yet
        self.num_calls = 0  # unanswered calls
        self.heard_s = 0.0  # when it last answered, or was called with no other call unanswered
        self.is_asked = False  # True while a request that tests whether it answers is unanswered

    def run(self, replica: int, rows: list[JobRow]) -> tuple[list[int], Any]:
        """Send jobs to the actor. Return (the numbers under which they were sent, Ray's reference to the answer)."""
        sendings = [row.sending for row in rows]
        self.sent_ns |= dict.fromkeys(sendings, time.monotonic_ns())
        self.bundles.append(sendings)
        return sendings, self.handle.run.remote(replica, [tuple(row) for row in rows])

    def look(self) -> tuple[int, int]:
        """Return (the number under which its current job was sent, its start in monotonic ns); (0, 0) if it has none.

        The current job is the oldest one without an answer.
        """
        if not (self.is_ready and self.sent_ns):
            return 0, 0
        sending, sent_ns = next(iter(self.sent_ns.items()))
        return sending, max(sent_ns, self.since_ns)
