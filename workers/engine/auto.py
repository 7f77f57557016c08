"""The engine of ``nb_workers="auto"``, which starts without workers and later uses as many as make the loop faster.

The loop and the workers compute the same batches, so a pass (one run of the loop over an epoch) can switch between the
two at any batch. The loop computes the batches in the phases ALONE and LOST, and the workers in SHARED. In TRIAL both
compute the same batch, and the two results are compared::

    ALONE   --  new workers are ready                 -->  TRIAL   from this batch on
    TRIAL   --  the comparison finds no difference    -->  SHARED
    ALONE   --  workers that need no trial are ready  -->  SHARED
    SHARED  --  the workers do not pay off            -->  ALONE   after the batches already sent to them
    any     --  workers are lost, or batches differ   -->  LOST    for good, with a warning

The ``chooser`` module decides how many workers there are. It uses measurements that this module makes from time to
time, when the loop asks for a batch. Everything here runs in the loop's thread, but ``Engine`` has its own. A forked
child process has no workers, so its phase is LOST.
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
from .chooser import Choice, Chooser
from .engine import Engine
from .loop_sampler import LoopSampler
from .passes import Ahead
from .serial import SerialEngine

logger = logging.getLogger("workers")

_LOOK_S = 0.02  # seconds between two measurements of a loop without workers
_LOOK_AT_WORKERS_S = 0.1  # the same for a loop with workers
_KEPT_CHOICES = 20
_OF_MEMORY = 0.7  # share of the available memory that additional workers may take


class Workers(Protocol):
    """The object that starts the workers of an AutoEngine, and knows which sequence they must load."""

    def have(self, nb_workers: int) -> Engine:
        """Start a pool of ``nb_workers`` workers, or resize the running pool to this number. Return its engine."""

    def changes(self) -> Any:
        """Return the pickled sequence (the parcel) that workers must load before they compute the rest of this pass.
        Return None if they have already loaded the current sequence."""

    def sent(self, parcel: Any) -> None:
        """Record that ``parcel``, a result of :meth:`changes`, was sent to the workers and need not be sent again."""


class AutoEngine:
    """The engine of ``nb_workers="auto"``, which computes batches in the loop, or in as many workers as pay off.

    Args:
        task: the object that computes the batches.
        figures: the statistics of the loop and of its workers.
        least: the minimum number of workers; with 0, the loop may go on without workers.
        workers: the object that starts the workers.
        cores: a function that returns how many cores the workers may use now.
        most: a function that returns how many workers other machines have room for now; None if workers run here.
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
        self._compared: Engine | None = None  # the engine whose workers have passed the trial
        self._followed = self.chooser.choice
        self._all_figures = figures
        self.workers = workers
        self._least = least
        self._sampler = LoopSampler(figures)
        self._reading: weakref.ref[AutoReading] | None = None  # the handle of the newest pass
        self.lock = threading.RLock()  # a pass may begin while another thread reads the previous one
        self.pid = os.getpid()
        if least:
            self._choose(Choice(least, "the minimum with these options"))

    # -- as an Engine

    @property
    def has_ended(self) -> bool:
        return self.serial.has_ended or (self._least > 0 and self.engine is not None and self.engine.has_ended)

    @property
    def has_background_jobs(self) -> bool:
        return self.engine is not None and self.engine.has_background_jobs

    @property
    def is_compared(self) -> bool:
        """True if the workers need no trial, in which the loop computes one of their batches too and compares the two.
        Either they have passed a trial, or a minimum number of workers keeps the loop from computing batches itself."""
        return self._least > 0 or (self.engine is not None and self.engine is self._compared)

    @property
    def nb_workers(self) -> int:
        """The number of workers that compute batches now; 0 if the loop computes them."""
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
            goes_over = are_used and self.is_compared
            if self.phase is not Phase.LOST and not goes_over:
                self.enter(Phase.ALONE)
            reading = AutoReading(self, epoch, length, ahead, order)
            self._reading = weakref.ref(reading)
            if goes_over:
                reading.go_over(0)
        return reading

    def is_read_by(self, reading: AutoReading) -> bool:
        """Return True if ``reading`` reads the newest pass. Older passes may not change the number of workers."""
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
        self.serial.close()  # first, because _started checks this in another thread
        if self.engine is not None:
            self.engine.close()

    # -- going over

    @property
    def is_ready(self) -> bool:
        """True if a worker is ready for jobs. Reading this restarts workers that were ended because they were idle."""
        if self.engine is None or self.has_lost_workers():
            return False
        if self.engine.has_ended_workers:
            self.engine.resize(self.chooser.nb_workers)
        return self._num_ready() > 0

    def _num_ready(self) -> int:
        return sum(lane.state == "ready" for lane in list(self.figures.lanes.values()))

    def has_lost_workers(self) -> bool:
        """Give up the workers if their engine has failed for good, or if this process is a fork, which has none.
        Return True if they were given up, and False if they work or if the loop must not go on without them."""
        if self.engine is None:
            return False
        if os.getpid() != self.pid:
            return self.give_up_workers("a fork has no workers")
        return self.engine.fatal is not None and self.give_up_workers(self.engine.fatal)

    def give_up_workers(self, why: BaseException | str) -> bool:
        """End the workers, and let the loop compute all further batches. Log ``why`` as a warning, and return True.

        Do nothing and return False if a minimum of workers is required, or if ``why`` is an IntegrityError, which must
        end the loop.
        """
        if self._least or isinstance(why, IntegrityError):
            return False
        engine, self.engine = self.engine, None
        self.phase = Phase.LOST
        self.chooser.choice = self._followed = Choice(0, str(why))
        # Logged as text: a log record that held the error would keep all objects of its traceback alive.
        logger.warning("the batches are computed in the loop, without workers: %s", str(why))
        if engine is not None:
            engine.close()
        return True

    def look(self, left: int) -> float:
        """Measure the loop, and start, add or dismiss workers if the measurements say that this pays off.

        Args:
            left: how many batches of the pass are still to come.

        Returns:
            Seconds until the next measurement.
        """
        self._look_at_machines()
        if self.phase is Phase.SHARED and self._num_ready() < self.chooser.nb_workers:
            self._sampler.begin()  # they are measured once all of them are there
            return _LOOK_S
        sample = self._sampler.sample(self.nb_workers)
        if sample is None:
            return _LOOK_S
        if self.phase is (Phase.SHARED if self.chooser.nb_workers else Phase.ALONE):
            self.chooser.add(sample, left)
        if self.chooser.choice is not self._followed:  # the choice is new, or a Ctrl-C has interrupted _choose
            self._choose(self.chooser.choice)
        return _LOOK_AT_WORKERS_S if self.phase is Phase.SHARED else _LOOK_S

    def _look_at_machines(self) -> None:
        if self._most is not None:  # machines come and go
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
        except Exception as error:  # including any error that the user's classes raise while they are pickled
            if not self.give_up_workers(error):
                raise
            return False
        if self.serial.has_ended:  # closed meanwhile by another thread
            self.engine.close()
        return True

    def _workers_that_fit(self, nb_workers: int) -> int:
        """Return how many of ``nb_workers`` workers fit into the available memory, at least 1.

        Each worker is assumed to need as much memory as the largest running one. While none runs, it is assumed to need
        as much as this process, which has run the jobs so far, so the first result may be too low.
        """
        if self._most is not None:
            return nb_workers
        available, running = available_nbytes(), [lane.pid for lane in list(self.figures.lanes.values()) if lane.pid]
        if available is None or nb_workers <= max(1, len(running)):
            return nb_workers
        each = max(usage(pid)[1] or 0 for pid in running or [os.getpid()])
        more = int(_OF_MEMORY * available / max(each, 1))
        return min(nb_workers, max(1, len(running) + more))

    def has_compared(self) -> None:
        """Let the workers compute the batches from now on, because they have passed the trial."""
        self._compared = self.engine
        self.enter(Phase.SHARED)

    def enter(self, phase: Phase) -> None:
        """Enter ``phase``, which says who computes the batches from now on; if it is new, measure the loop anew."""
        if phase is not self.phase:
            self._sampler.begin()
        self.phase = phase
