"""An actor, as the consumer has it."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from workers.engine.executor import Stuck
from workers.engine.schedule import JobRow


class ActorHandle:
    def __init__(self, number: int, handle: Any) -> None:
        self.number = number
        self.handle = handle
        self.is_ready = False
        self.stuck: Stuck | None = None
        self.stack = ""  # as it was told last
        self.sent_ns: dict[int, int] = {}  # {sending of what it has not answered: when it was sent}, in this order
        self.bundles: deque[list[int]] = deque()  # the same, as they were sent together
        self.since_ns = 0  # when it last had nothing to do, or finished a job
        self.node = ""  # where it is, as Ray calls it; until it has told it: nowhere
        self.num_calls = 0  # that it has not answered
        self.heard_s = 0.0  # when it last answered, or was called after all was answered
        self.is_asked = False  # whether it is there

    def run(self, replica: int, rows: list[JobRow]) -> tuple[list[int], Any]:
        """Have it do jobs: (their sendings, Ray's reference of the answer)."""
        sendings = [row.sending for row in rows]
        self.sent_ns |= dict.fromkeys(sendings, time.monotonic_ns())
        self.bundles.append(sendings)
        return sendings, self.handle.run.remote(replica, [tuple(row) for row in rows])

    def look(self) -> tuple[int, int]:
        """(sending of the job that it is at, since when): it does what it was sent one after the other."""
        if not (self.is_ready and self.sent_ns):
            return 0, 0
        sending, sent_ns = next(iter(self.sent_ns.items()))
        return sending, max(sent_ns, self.since_ns)
