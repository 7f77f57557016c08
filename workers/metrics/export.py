"""``export()``: shows the figures of a loop to a monitoring system."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any, Literal

from workers.checks import check_choice, check_int, check_seconds, short
from workers.frameworks.keras import Counted
from workers.sequence.base import Sequence

if TYPE_CHECKING:
    from typing_extensions import Self

    from .prometheus import Exposition

_MOST_PORTS = 65535


class Export:
    """What :func:`workers.export` returns; leaving its ``with`` block, or :meth:`close`, ends the export.

    Attributes:
        name: the label ``name`` of its metrics.
        port: the port where they are served, also if 0 was given; None if they are not served.
        address: the address where they are served.
        textfile: the path of the text file; None if there is none.
    """

    def __init__(self, batches: Sequence[Any], name: str) -> None:
        self.name = name
        self.port: int | None = None
        self.address: str | None = None
        self.textfile: str | None = None
        self._batches = weakref.ref(batches)
        self._expositions: list[Exposition] = []
        batches._clock.closed_with.append(self.close)

    def serve(self, address: str, port: int) -> None:
        """Serve the metrics by HTTP. Raise OSError if the port is taken by something else."""
        from .prometheus import MetricsServer, shown

        server = shown((address, port), lambda: MetricsServer(address, port), self.name, self._batches)
        assert isinstance(server, MetricsServer)
        self._expositions.append(server)
        self.address, self.port = address, server.port

    def write(self, path: str, every_s: float) -> None:
        """Write the metrics into the file ``path``, now and every ``every_s`` seconds. Raise OSError if that fails."""
        from .prometheus import MetricsFile, shown

        self._expositions.append(shown(path, lambda: MetricsFile(path, every_s), self.name, self._batches))
        self.textfile = path

    def close(self) -> None:
        """End the export. May be called again. A text file is written once more, and stays."""
        batches, expositions = self._batches(), self._expositions
        self._expositions = []
        if batches is not None and self.close in batches._clock.closed_with:
            batches._clock.closed_with.remove(self.close)
        for each in expositions:
            each.remove(self.name, self._batches)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def export(
    batches: Sequence[Any],
    to: Literal["prometheus"] = "prometheus",
    *,
    port: int | None = None,
    address: str = "127.0.0.1",
    textfile: str | os.PathLike[str] | None = None,
    every_s: float = 15.0,
    name: str | None = None,
) -> Export:
    """Show the figures of ``batches`` to Prometheus while they are read: served at a port, or in a text file, or both.

    The metrics are counters since ``batches`` was made, such as ``prefetch_wait_seconds_total``, and gauges, such as
    ``prefetch_workers``; ``workers/report/README.rst`` lists them. The share of time that the loop waits is
    ``rate(prefetch_wait_seconds_total[5m])`` by the sum of that and ``rate(prefetch_step_seconds_total[5m])``.

    The export ends when ``batches`` is closed or freed. Several sequences may share a port or a file, under different
    names. Needs prometheus_client: ``pip install "path/to/this[metrics]"``.

    Args:
        batches: a front-end, or a sequence that ``model.fit`` reads.
        to: the monitoring system; only ``"prometheus"``.
        port: the port of an HTTP server for scrapes; 0 for a free one, which the result's ``port`` tells.
        address: the address of the server: by default only programs on this machine can read it; ``"0.0.0.0"`` for all.
        textfile: a file for node_exporter's textfile collector, ending in ``.prom``. It is replaced in one step. When
            the export ends it keeps the last values.
        every_s: seconds between two writes of the file.
        name: the label ``name`` of all metrics; by default the name of the class of the source.

    Returns:
        The export, which has ``close()`` and can be used in ``with``.

    Raises:
        TypeError, ValueError: an argument is wrong, or ``name`` is used at that port or in that file already.
        OSError: the port is taken, or the file cannot be written. ClosedError: ``batches`` is closed. ImportError:
            prometheus_client is not installed.
    """
    if not isinstance(batches, Sequence):
        raise TypeError(f"batches must be a front-end or a sequence, not a {type(batches).__name__}")
    check_choice("to", to, ("prometheus",))
    batches._check_open()
    if port is None and textfile is None:
        raise ValueError("export needs a port, such as port=9400, or a file, such as textfile='loading.prom'")
    if port is not None and check_int("port", port, 0, f"a port from 0 to {_MOST_PORTS}") > _MOST_PORTS:
        raise ValueError(f"port must be a port from 0 to {_MOST_PORTS}, not {short(port)}")
    path = None if textfile is None else os.path.abspath(textfile)
    if path is not None and not path.endswith(".prom"):
        raise ValueError(f"textfile must end in .prom, else node_exporter ignores it, not {short(path)}")
    every = check_seconds("every_s", every_s, allow_none=False)
    try:
        from . import prometheus  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "an export to Prometheus needs prometheus_client, which cannot be imported: pip install prometheus_client"
        ) from error
    made = Export(batches, _name_of(batches) if name is None else name)
    try:
        if port is not None:
            made.serve(address, port)
        if path is not None:
            made.write(path, every or 0.0)
    except BaseException:
        made.close()
        raise
    return made


def _name_of(batches: Sequence[Any]) -> str:
    origin = batches._plan().origin
    return str(origin.dataset_name) if isinstance(origin, Counted) else type(origin).__name__
