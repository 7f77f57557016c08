"""The engine of ``nb_workers="auto"``: it begins without workers, and has as many as pay.

A pass begins in the loop's own process, or with the workers that there are. Both compute the same batches, so it can go
over from one to the other between any two::

    in the loop      --  workers are ready  -->  with workers, from this batch on
    with workers     --  they do not pay    -->  what was sent to them, then in the loop

Who decides is the ``chooser``; this measures for it, now and then, while the loop asks for batches. All runs in the
loop's thread, but for what ``Engine`` does in its own. Workers that cannot be had any more cost a warning: the loop
goes on alone, from the batch that it has asked for. So does a fork of it, which has no workers.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from workers import limits
from workers.batch.memory_limit import available_nbytes
from workers.errors import IntegrityError
from workers.figures import units
from workers.figures.pool import Figures, usage
from workers.figures.timeline import LOOP

from .auto_reading import AutoReading
from .chooser import Choice, Chooser
from .engine import Engine
from .look import Look
from .passes import Ahead
from .serial import SerialEngine

logger = logging.getLogger("workers")

_LOOK_S = 0.02  # between two looks at the loop, without workers
_LOOK_AT_WORKERS_S = 0.25  # the same with workers
_KEPT_CHOICES = 20
_OF_MEMORY = 0.7  # share of what is left that more workers may take


class Workers(Protocol):
    """Who can have workers."""

    def have(self, nb_workers: int) -> Engine:
        """An engine with ``nb_workers`` workers."""

    def changes(self) -> Any:
        """What these have to be sent before they can have the rest of this pass; None: nothing."""

    def sent(self, parcel: Any) -> None:
        """They have it."""


class AutoEngine:
    """See the module's text.

    Args:
        task: what the jobs are.
        figures: of the front-end; what is measured is read here.
        least: workers that there are always.
        workers: who has them.
        cores: for workers, as it is now.
        most: workers on other machines that there may be now; None: they are here.
    """

    def __init__(
        self,
        task: Any,
        figures: Figures,
        least: int,
        workers: Workers,
        cores: Callable[[], int] = limits.cores,
        most: Callable[[], int] | None = None,
    ) -> None:
        self._cores, self._most = cores, most
        self.serial = SerialEngine(task, figures.pool)
        self.figures = figures.pool
        self.chooser = Chooser(cores(), least, self._that_fit)
        self._look_at_machines()
        self.engine: Engine | None = None
        self._all_figures = figures
        self.workers = workers
        self._least = least
        self._has_begun = False  # the workers are used
        self._is_hopeless = False  # there can be no workers
        # A batch of these workers with the loop's own; with ``least``, the loop has none of its own.
        self.is_compared = least > 0
        self._look = Look(figures)
        self._reading: weakref.ref[AutoReading] | None = None  # of the pass that was begun last
        self.lock = threading.RLock()  # a pass may begin while another thread reads the one before
        self.pid = os.getpid()
        if least:
            self._choose(Choice(least, "so many at least"))

    # -- as an Engine

    @property
    def has_ended(self) -> bool:
        return self.serial.has_ended or (self._least > 0 and self.engine is not None and self.engine.has_ended)

    @property
    def has_background_jobs(self) -> bool:
        return self.engine is not None and self.engine.has_background_jobs

    @property
    def _begins_with_workers(self) -> bool:
        """Whether a pass that begins now does not begin alone."""
        return self.chooser.nb_workers > 0 and self.is_compared and (self._has_begun or self._least > 0)

    @property
    def nb_workers(self) -> int:
        """Workers that are used now."""
        return self.chooser.nb_workers if self._has_begun else 0

    def begin(
        self,
        epoch: int,
        length: int,
        is_open: bool,
        ahead: Ahead | None,
        parcel: Any,
        order: Sequence[int] | None = None,
    ) -> AutoReading:
        self.check()
        with self.lock:
            self._look.begin()
            reading = AutoReading(self, epoch, length, ahead, order)
            self._reading = weakref.ref(reading)
            if self._begins_with_workers:
                reading.go_over(0)
        return reading

    def is_read_by(self, reading: AutoReading) -> bool:
        """Whether no other pass was begun behind it."""
        return self._reading is not None and self._reading() is reading

    def bound(self) -> int:
        return 1

    def check(self) -> None:
        self.serial.check()
        try:
            if self.engine is not None:
                self.engine.check()
        except Exception:
            if not self.lacks_workers():
                raise

    def close(self) -> None:
        self.serial.close()  # first: see _started
        if self.engine is not None:
            self.engine.close()

    # -- going over

    @property
    def is_ready(self) -> bool:
        """Whether there is a worker that could begin. Those that were ended for want of work are started again."""
        if self.engine is None or self.lacks_workers():
            return False
        if self.engine.is_resting:
            self.engine.resize(self.chooser.nb_workers)
        return any(lane.state == "ready" for lane in list(self.figures.lanes.values()))

    def lacks_workers(self) -> bool:
        """Whether those that it had are lost for good, and it can do without."""
        if self.engine is None:
            return False
        if os.getpid() != self.pid:
            return self.does_without("a fork has no workers")
        return self.engine.fatal is not None and self.does_without(self.engine.fatal)

    def does_without(self, why: BaseException | str) -> bool:
        """There can be no workers. False: it cannot do without, or is not to."""
        if self._least or isinstance(why, IntegrityError):
            return False
        engine, self.engine = self.engine, None
        self._is_hopeless, self._has_begun, self.chooser.nb_workers = True, False, 0
        # As a text: an error's traceback would hold all of this.
        logger.warning("the batches are computed in the loop, without workers: %s", str(why))
        if engine is not None:
            engine.close()
        return True

    def look(self, left: int) -> float:
        """Look at the loop, and decide. ``left``: batches of the pass that are to come. Returns: in how many seconds
        to look again."""
        self._look_at_machines()
        sample = self._look.sample(self.nb_workers)
        if sample is None:
            return _LOOK_S
        choice = None
        if self._has_begun:
            choice = self.chooser.with_workers(sample)
        elif self.chooser.nb_workers == 0 and not self._is_hopeless:
            choice = self.chooser.without_workers(sample, left)
        if choice is not None:
            self._choose(choice)
        return _LOOK_AT_WORKERS_S if self._has_begun else _LOOK_S

    def _look_at_machines(self) -> None:
        if self._most is not None:  # they come and go
            self.chooser.have(self._cores(), self._most())

    def _choose(self, choice: Choice) -> None:
        nb_workers, why = choice
        if nb_workers:
            if self.engine is not None and self._has_begun:
                self.engine.resize(nb_workers)
            elif not self._started(nb_workers):
                return
        self.chooser.nb_workers = nb_workers
        text = f"{units.count(nb_workers, 'worker') if nb_workers else 'no workers'}: {why}"
        logger.debug("nb_workers=auto: %s", text)
        self.figures.tell(LOOP, "chosen", text)
        self._all_figures.choices = [*self._all_figures.choices, text][-_KEPT_CHOICES:]

    def _started(self, nb_workers: int) -> bool:
        before = self.engine
        try:
            self.engine = self.workers.have(nb_workers)
            self.is_compared = self._least > 0 or (self.is_compared and self.engine is before)
        except Exception as error:  # also what the user's classes raise when they are pickled
            if not self.does_without(error):
                raise
            return False
        if self.serial.has_ended:  # meanwhile, by another thread
            self.engine.close()
        return True

    def _that_fit(self, nb_workers: int) -> int:
        """``nb_workers``, or as many as there is memory for. While there are none, one is taken to need as much as this
        process has, which has run the jobs so far; so the first ones may be fewer, until they are measured."""
        if self._most is not None:
            return nb_workers
        available, running = available_nbytes(), [lane.pid for lane in list(self.figures.lanes.values()) if lane.pid]
        if available is None or nb_workers <= max(1, len(running)):
            return nb_workers
        each = max(usage(pid)[1] or 0 for pid in running or [os.getpid()])
        more = int(_OF_MEMORY * available / max(each, 1))
        return min(nb_workers, max(1, len(running) + more))

    def has_compared(self) -> None:
        """A batch of the workers was the loop's own, byte for byte: from here on they are used."""
        self.is_compared = True
        self.with_workers(True)

    def with_workers(self, is_on: bool) -> None:
        """The workers are used from now on, or not any more."""
        self._has_begun = is_on
        self._look.begin()
