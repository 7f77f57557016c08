"""An actor, as the consumer has it."""

from __future__ import annotations

from collections import deque
from typing import Any

from workers.engine.executor import Stuck


class Member:
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
