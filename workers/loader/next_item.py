"""Reading a front-end by ``next()`` of itself, and what else of it trw's users call.

Source: ``trw.train.SequenceMap``.
"""

from __future__ import annotations

from typing import Any, Generic

from workers.errors import StalePassError
from workers.sequence.chain import Batch_co
from workers.sequence.clock import Clock

from .pool import Pool
from .sources import FedPass


class ReadByNext(Generic[Batch_co]):
    """The pass that was begun last, read without an iterator."""

    _pool: Pool | None
    _pass: Any
    _iterator: Any
    queue_timeout: Any
    _check_open: Any
    _begin_pass: Any
    _next_of: Any

    @property
    def _clock(self) -> Clock:
        raise NotImplementedError

    def initializer(self) -> None:
        """Begin a pass, which ``next()`` of this then reads."""
        self._begin_pass()

    def __next__(self) -> Batch_co:
        return self.next_item(blocking=True)  # type: ignore[no-any-return]

    def next_item(self, blocking: bool) -> Any:
        """The next batch of the pass that was begun last; if there is none, one begins.

        Args:
            blocking: wait for it. If not, at most ``queue_timeout`` seconds, and then raise StopIteration.

        Raises:
            StopIteration: the pass is over (or see ``blocking``). What a job raised, at its batch's place.
        """
        self._check_open()
        begun, self._iterator = self._pass, None  # it is read without one
        if begun is None or begun.version != self._clock.version:  # the epoch was set, or a state loaded
            begun = self._begin_pass()
        try:
            return self._next_of(begun, None if blocking else self.queue_timeout)
        except StalePassError:
            if self._pass is begun and begun.version == self._clock.version:
                raise
            return self.next_item(blocking)  # on_error has begun another

    def has_background_jobs(self) -> bool:
        """Whether a worker has something to do."""
        return self._pool is not None and self._pool.engine.has_background_jobs

    def fill_queue(self) -> None:
        """Read items of a source that has only ``__iter__``, as many as may be in work. Called by ``next``."""
        if isinstance(self._pass, FedPass):
            self._pass.fill_queue()
