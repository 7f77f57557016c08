"""The engine of ``nb_workers="auto"``: it begins without workers, and has as many as pay.

The loop and its workers compute the same batches, so a pass can go over from one to the other between any two::

    ALONE   --  new workers are ready              -->  TRIAL    from this batch on
    TRIAL   --  a batch of theirs was compared     -->  SHARED
    ALONE   --  workers come again, or a new pass  -->  SHARED
    SHARED  --  they do not pay                    -->  ALONE    after what was sent to them
    any     --  workers are lost, or compute
                other batches than the loop        -->  LOST     for good, with a warning

The ``chooser`` decides how many workers there are. This measures for it, now and then, while the loop asks for batches.
All of it runs in the loop's thread, but for what ``Engine`` does in its own. A fork of the program has no workers, so
it is LOST there.
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
from workers.report import units
from workers.report.pool import Figures, usage
from workers.report.timeline import LOOP

from .auto_reading import AutoReading, Phase
from .chooser import Choice, Chooser, LoopSampler
from .engine import Engine
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
        self.chooser = Chooser(cores(), least, self._workers_that_fit)
        self._look_at_machines()
        self.phase = Phase.ALONE
        self.engine: Engine | None = None
        self._compared: Engine | None = None  # the one that has computed what the loop has
        self._followed = self.chooser.choice
        self._all_figures = figures
        self.workers = workers
        self._least = least
        self._sampler = LoopSampler(figures)
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
    def is_compared(self) -> bool:
        """Whether its workers need no trial. With ``least`` the loop has no batches of its own to compare with."""
        return self._least > 0 or (self.engine is not None and self.engine is self._compared)

    @property
    def nb_workers(self) -> int:
        """Workers that are used now."""
        return self.chooser.nb_workers if self.phase is Phase.SHARED else 0

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
            are_used = self.chooser.nb_workers > 0 and (self.phase is Phase.SHARED or self._least > 0)
            if self.phase is not Phase.LOST:
                self.enter(Phase.ALONE)
            reading = AutoReading(self, epoch, length, ahead, order)
            self._reading = weakref.ref(reading)
            if are_used and self.is_compared:
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
            if not self.has_lost_workers():
                raise

    def close(self) -> None:
        self.serial.close()  # first: see _started
        if self.engine is not None:
            self.engine.close()

    # -- going over

    @property
    def is_ready(self) -> bool:
        """Whether there is a worker that could begin. Those that were ended for want of work are started again."""
        if self.engine is None or self.has_lost_workers():
            return False
        if self.engine.is_resting:
            self.engine.resize(self.chooser.nb_workers)
        return any(lane.state == "ready" for lane in list(self.figures.lanes.values()))

    def has_lost_workers(self) -> bool:
        """Whether those that it had are lost for good, and it can do without."""
        if self.engine is None:
            return False
        if os.getpid() != self.pid:
            return self.give_up_workers("a fork has no workers")
        return self.engine.fatal is not None and self.give_up_workers(self.engine.fatal)

    def give_up_workers(self, why: BaseException | str) -> bool:
        """There can be no workers. False: it cannot do without, or is not to."""
        if self._least or isinstance(why, IntegrityError):
            return False
        engine, self.engine = self.engine, None
        self.phase = Phase.LOST
        self.chooser.choice = self._followed = Choice(0, str(why))
        # As a text: an error's traceback would hold all of this.
        logger.warning("the batches are computed in the loop, without workers: %s", str(why))
        if engine is not None:
            engine.close()
        return True

    def look(self, left: int) -> float:
        """Look at the loop, and decide. ``left``: batches of the pass that are to come. Returns: in how many seconds
        to look again."""
        self._look_at_machines()
        sample = self._sampler.sample(self.nb_workers)
        if sample is None:
            return _LOOK_S
        if self.phase is Phase.SHARED and self.chooser.nb_workers:
            self.chooser.with_workers(sample)
        elif self.phase is Phase.ALONE and not self.chooser.nb_workers:
            self.chooser.without_workers(sample, left)
        if self.chooser.choice is not self._followed:  # also where a Ctrl-C has kept it from that
            self._choose(self.chooser.choice)
        return _LOOK_AT_WORKERS_S if self.phase is Phase.SHARED else _LOOK_S

    def _look_at_machines(self) -> None:
        if self._most is not None:  # they come and go
            self.chooser.have(self._cores(), self._most())

    def _choose(self, choice: Choice) -> None:
        nb_workers, why = choice
        if nb_workers:
            if self.engine is not None and self.phase is Phase.SHARED:
                self.engine.resize(nb_workers)
            elif not self._started(nb_workers):
                return
        self.chooser.choice = self._followed = choice
        text = f"{units.count(nb_workers, 'worker') if nb_workers else 'no workers'}: {why}"
        logger.debug("nb_workers=auto: %s", text)
        self.figures.tell(LOOP, "chosen", text)
        self._all_figures.choices = [*self._all_figures.choices, text][-_KEPT_CHOICES:]

    def _started(self, nb_workers: int) -> bool:
        try:
            self.engine = self.workers.have(nb_workers)
        except Exception as error:  # also what the user's classes raise when they are pickled
            if not self.give_up_workers(error):
                raise
            return False
        if self.serial.has_ended:  # meanwhile, by another thread
            self.engine.close()
        return True

    def _workers_that_fit(self, nb_workers: int) -> int:
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
        self._compared = self.engine
        self.enter(Phase.SHARED)

    def enter(self, phase: Phase) -> None:
        """From now on they compute the batches that ``phase`` says; what was measured before does not count."""
        self.phase = phase
        self._sampler.begin()
