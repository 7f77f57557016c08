"""Shows the figures of loops to Prometheus: by HTTP, or in a text file that node_exporter reads.

Nothing is counted here: a scrape reads the sums that each loop keeps anyway. A sequence is held weakly. ``close()`` of
it ends its export; if it is freed without, an :class:`Exposition` notices, and ends itself once it has no other one.
"""

from __future__ import annotations

import functools
import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import MetricsHandler
from prometheus_client.registry import Collector

from workers.errors import StateError
from workers.report.figures import WHAT_FAILURES, Tally

logger = logging.getLogger("workers")

_POLL_S = 0.2  # how often a server checks whether it has ended
_PREFIX = "prefetch_"
#: (name, help, value): each becomes a counter ``prefetch_NAME_total``.
_COUNTERS: list[tuple[str, str, Callable[[Tally], float]]] = [
    ("batches", "Batches that the loop has received.", lambda tally: tally.loop.num_batches),
    ("bytes", "Bytes of the batches that worker processes have finished.", lambda tally: tally.nbytes),
    ("wait_seconds", "Time that the loop has waited for batches.", lambda tally: tally.loop.wait_ns / 1e9),
    ("step_seconds", "Time of the loop between two batches.", lambda tally: tally.loop.step_ns / 1e9),
    ("start_seconds", "Time spent on starting passes over an epoch.", lambda tally: tally.start_s),
    ("ready_batches", "Finished batches at each request for one, in sum.", lambda tally: tally.loop.num_ready),
    ("jobs", "Jobs measured: all of workers; without workers, one every 5 ms.", lambda tally: tally.jobs.number),
    ("job_seconds", "Time that the measured jobs took.", lambda tally: tally.jobs.ns / 1e9),
    ("restarts", "Workers that died and were replaced.", lambda tally: tally.restarts),
    ("cache_hits", "Items found in a cache.", lambda tally: tally.cache_hits),
    ("cache_misses", "Items not found in a cache, and made.", lambda tally: tally.cache_misses),
]
_GAUGES: list[tuple[str, str, Callable[[Tally], float]]] = [
    ("workers", "Workers now.", lambda tally: tally.nb_workers),
    ("bound", "Most batches ahead of the loop now.", lambda tally: tally.bound),
]


class LoopCollector(Collector):
    """Makes the metrics of several loops, each with its name as label ``name``, when Prometheus asks for them.

    Attributes:
        sequences: {name: a weak reference to the front-end or sequence}.
    """

    def __init__(self) -> None:
        self.sequences: dict[str, Callable[[], Any]] = {}

    def drop_freed(self) -> None:
        """Forget the sequences that were freed."""
        self.sequences = {name: held for name, held in self.sequences.items() if held() is not None}

    def collect(self) -> Iterator[Metric]:
        tallies = dict(self._tallies())
        for name, text, value in _COUNTERS:
            counter = CounterMetricFamily(_PREFIX + name, text, labels=["name"])
            for of, tally in tallies.items():
                counter.add_metric([of], value(tally))
            yield counter
        for name, text, value in _GAUGES:
            gauge = GaugeMetricFamily(_PREFIX + name, text, labels=["name"])
            for of, tally in tallies.items():
                gauge.add_metric([of], value(tally))
            yield gauge
        failures = CounterMetricFamily(
            f"{_PREFIX}failures", "Samples and batches skipped, redrawn or retried.", labels=["name", "what"]
        )
        jobs = CounterMetricFamily(f"{_PREFIX}stage_jobs", "Jobs recorded in detail.", labels=["name", "stage"])
        seconds = CounterMetricFamily(f"{_PREFIX}stage_seconds", "Time of a stage in them.", labels=["name", "stage"])
        for of, tally in tallies.items():
            for what in WHAT_FAILURES:
                failures.add_metric([of, what], tally.failures.get(what, 0))
            for stage, total in tally.stages.items():
                jobs.add_metric([of, stage], total.number)
                seconds.add_metric([of, stage], total.ns / 1e9)
        yield from (failures, jobs, seconds)

    def describe(self) -> Iterable[Metric]:
        return ()  # else the registry collects once to learn the names

    def _tallies(self) -> Iterator[tuple[str, Tally]]:
        for name, held in list(self.sequences.items()):
            sequence = held()
            if sequence is not None:
                try:
                    yield name, sequence._live.tally()
                except StateError:  # no model.fit has read it yet
                    continue


class Exposition:
    """What shows the figures of one sequence or more, from a thread of its own. Use :func:`shown` to make one.

    Attributes:
        key: where the figures are shown; no two expositions have the same.
    """

    key: Any

    def __init__(self) -> None:
        self.collector = LoopCollector()
        self.registry = CollectorRegistry()
        self.registry.register(self.collector)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="workers.export", daemon=True)

    def start(self) -> None:
        """Start the thread; the attribute ``key`` is set by then."""
        self._thread.start()

    def _run(self) -> None:
        raise NotImplementedError

    def is_needed(self) -> bool:
        """Return False if it has ended, or ends now because all of its sequences were freed."""
        with _lock:
            self.collector.drop_freed()
            if not self.collector.sequences:
                self._forget()
        return not self._ended.is_set()

    def _forget(self) -> None:
        self._ended.set()
        if _shown.get(self.key) is self:
            del _shown[self.key]

    def remove(self, name: str, held: Callable[[], Any]) -> None:
        """Show the sequence ``name`` no more, which ``held`` returns, unless that name is now another one's.
        The last one ends the exposition, and its thread."""
        with _lock:
            if self.collector.sequences.get(name, held) is not held:
                return
            is_last = set(self.collector.sequences) <= {name}
            if is_last:
                self._forget()
            else:
                self.collector.sequences.pop(name, None)
        if is_last:
            self._thread.join()
            self.finish()

    def finish(self) -> None:
        """Act when the thread has ended, because the last sequence is closed."""


_lock = threading.Lock()
_shown: dict[Any, Exposition] = {}  # {key: the exposition there}, of this process


def shown(key: Any, make: Callable[[], Exposition], name: str, held: Callable[[], Any]) -> Exposition:
    """Show a sequence as ``name`` at the place ``key``, in what is there already, or in what ``make`` makes.

    ``held`` is a weak reference to the sequence.

    Raises:
        ValueError: another sequence is shown there as ``name``. Any error of ``make``.
    """
    with _lock:
        found = _shown.get(key)
        if found is not None:
            found.collector.drop_freed()
            if name in found.collector.sequences:
                raise ValueError(
                    f'a sequence called {name!r} is exported there already: give another one, as name="..."'
                )
        exposition = found or make()
        exposition.collector.sequences[name] = held
        if found is None:
            exposition.start()
            _shown[exposition.key] = exposition
    return exposition


class MetricsServer(Exposition):
    """An HTTP server for Prometheus's scrapes, at ``port`` of ``address``; each path has the same metrics."""

    def __init__(self, address: str, port: int) -> None:
        super().__init__()
        handler = MetricsHandler.factory(self.registry)
        try:
            family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
            self._server = _server_class(family)((address, port), handler)
        except OSError as error:
            raise OSError(
                error.errno,
                f"figures cannot be exported at port {port} of {address}: {error.strerror or error}. Another program "
                "may use that port; port=0 takes a free one, and the export's .port tells which",
            ) from error
        self._server.timeout = _POLL_S
        self.port = int(self._server.server_address[1])
        self.key = address, self.port

    def _run(self) -> None:
        with self._server:
            while self.is_needed():
                self._server.handle_request()


@functools.cache
def _server_class(of_family: int) -> type[socketserver.TCPServer]:
    class ScrapeServer(socketserver.ThreadingTCPServer):  # not HTTPServer, which looks up the name of the host
        allow_reuse_address = True
        daemon_threads = True
        address_family = of_family

        def handle_error(self, request: Any, client_address: Any) -> None:
            logger.debug("a scrape by %s has failed", client_address, exc_info=True)  # noqa: LOG014  # called in one

    return ScrapeServer


class MetricsFile(Exposition):
    """A text file for node_exporter's textfile collector, written at once and then every ``every_s`` seconds."""

    def __init__(self, path: str, every_s: float) -> None:
        super().__init__()
        self.path, self.key = path, path
        self._every_s = every_s
        self._has_warned = False

    def start(self) -> None:
        self.write()
        super().start()

    def _run(self) -> None:
        while not self._ended.wait(self._every_s) and self.is_needed():
            self.write_again()

    def write(self) -> None:
        """Replace the file by a new one, in one step."""
        write_to_textfile(self.path, self.registry)

    def finish(self) -> None:
        self.collector.drop_freed()
        if self.collector.sequences:
            self.write_again()

    def write_again(self) -> None:
        """Write the file. If that fails, log a warning, the first time."""
        try:
            self.write()
        except OSError as error:
            if not self._has_warned:
                logger.warning("figures cannot be written into %s: %s", self.path, error)
            self._has_warned = True
