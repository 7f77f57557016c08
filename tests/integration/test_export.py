"""``workers.export``: what Prometheus reads from a running loop, by HTTP and in a file."""

from __future__ import annotations

import gc
import sys
import threading
import time
import urllib.error
import urllib.request
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty import wait_for

import workers.metrics
from workers import ClosedError, Sequence, export

parser: Any = pytest.importorskip("prometheus_client.parser")

LENGTH = 12
#: {metric: the figure that it has}.
SAME = {
    "prefetch_batches_total": "batches",
    "prefetch_bytes_total": "bytes",
    "prefetch_wait_seconds_total": "wait_s",
    "prefetch_start_seconds_total": "start_s",
    "prefetch_jobs_total": "jobs",
    "prefetch_restarts_total": "restarts",
    "prefetch_cache_hits_total": "cache_hits",
    "prefetch_cache_misses_total": "cache_misses",
    "prefetch_workers": "workers",
    "prefetch_bound": "bound",
}


class Rows(Sequence[Any]):
    def __init__(self, length: int = LENGTH) -> None:
        super().__init__(seed=1)
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.006)  # so that each is measured, without workers too
        if index == 3:
            raise ValueError("batch 3")
        return np.full(100, index)

    def on_epoch_end(self) -> None:
        self.changes = self.epoch  # so that nothing is computed ahead of an epoch


def front(length: int = LENGTH, nb_workers: Any = 1) -> Any:
    return Rows(length).prefetch(nb_workers=nb_workers, on_error="skip")


def read(text: str) -> dict[tuple[str, ...], float]:
    """{(metric, name of the loop, its other labels): value}; no metric comes twice."""
    families = list(parser.text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    assert {family.type for family in families} == {"counter", "gauge"}
    samples = [sample for family in families for sample in family.samples]
    found = {(each.name, each.labels.pop("name"), *each.labels.values()): each.value for each in samples}
    assert len(found) == len(samples)
    return found


def scrape(port: int | None) -> dict[tuple[str, ...], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        return read(answer.read().decode())


def is_served(port: int | None) -> bool:
    try:
        scrape(port)
    except (urllib.error.URLError, ConnectionError):
        return False
    return True


def is_same(found: dict[tuple[str, ...], float], name: str, figures: dict[str, float]) -> bool:
    assert found["prefetch_failures_total", name, "skipped"] == figures["failures_skipped"]
    assert found["prefetch_failures_total", name, "redrawn"] == 0
    busy_s, jobs = found["prefetch_job_seconds_total", name], found["prefetch_jobs_total", name]
    assert busy_s * 1e3 / jobs == pytest.approx(figures["job_ms"])
    of_stage = [found[f"prefetch_stage_{what}_total", name, "source"] for what in ("seconds", "jobs")]
    assert of_stage[0] * 1e3 / of_stage[1] == pytest.approx(figures["stage_source_ms"])
    times = found["prefetch_wait_seconds_total", name] + found["prefetch_step_seconds_total", name]
    assert times == pytest.approx(figures["seconds"])
    assert found["prefetch_ready_batches_total", name] == pytest.approx(figures["depth"] * figures["batches"])
    return {metric: found[metric, name] for metric in SAME} == {
        metric: pytest.approx(figures[figure]) for metric, figure in SAME.items()
    }


def test_scrapes() -> None:
    """Sums that only grow, whoever reads differences; several loops at one port; closing one ends its part."""
    with front() as batches:
        served = export(batches, port=0)
        assert served.port
        list(batches)
        wait_for(lambda: batches.report().as_dict()["jobs"] == LENGTH)
        first = scrape(served.port)
        assert is_same(first, "Rows", batches.report().as_dict())
        assert first["prefetch_batches_total", "Rows"] == LENGTH - 1
        batches.figures()
        with front(5, 0) as others:
            beside = export(others, "prometheus", port=served.port, name="validation")
            list(others)
            list(batches)
            wait_for(lambda: batches.report().as_dict()["jobs"] == 2 * LENGTH)
            second = scrape(served.port)
            assert is_same(second, "Rows", batches.report().as_dict())
            assert is_same(second, "validation", others.report().as_dict())
            assert second["prefetch_batches_total", "Rows"] == 2 * (LENGTH - 1)
            for metric in (key for key in first if key[0].endswith("_total")):
                assert second[metric] >= first[metric], metric
            with pytest.raises(ValueError, match="called 'Rows' is exported there already: give another one, as name="):
                export(others, port=served.port)
        assert {name for _, name, *_ in scrape(served.port)} == {"Rows"}
        beside.close()  # again
        assert served.address == "127.0.0.1"
    assert not is_served(served.port)


def test_the_end_of_an_export() -> None:
    batches = front(nb_workers=0)
    with export(batches, port=0) as served:
        assert is_served(served.port)
    assert not is_served(served.port)
    with export(batches, port=served.port, name="again") as again:
        assert {name for _, name, *_ in scrape(served.port)} == {"again"}
        with pytest.raises(
            OSError, match=f"cannot be exported at port {again.port} of 0.0.0.0: Address already in use"
        ):
            export(batches, port=again.port, address="0.0.0.0")
    held = export(batches, port=0, name="freed")
    assert is_served(held.port)
    weakly = weakref.ref(batches)
    del batches
    gc.collect()
    assert weakly() is None
    with front(nb_workers=0) as batches, export(batches, port=held.port, name="freed") as again:
        held.close()
        assert {name for _, name, *_ in scrape(again.port)} == {"freed"}
    held = export(batches := front(nb_workers=0), port=0)
    assert is_served(held.port)
    del batches
    gc.collect()
    wait_for(lambda: not is_served(held.port))
    closed = front()
    closed.close()
    with pytest.raises(ClosedError):
        export(closed, port=0)


def test_a_file(tmp_path: Path) -> None:
    """It has the last values when the export has ended, and no reader ever sees a part of it."""
    path = tmp_path / "loading.prom"
    with front() as batches, front(5, 0) as others:
        written = export(batches, textfile=path, every_s=0.01)
        export(others, textfile=path, name="others")
        assert (written.port, written.textfile) == (None, str(path))
        for at, _ in enumerate(batches, 1):
            wait_for(lambda at=at: read(path.read_text())["prefetch_batches_total", "Rows"] == at)
        others.close()
        wait_for(lambda: {name for _, name, *_ in read(path.read_text())} == {"Rows"})
        wait_for(lambda: batches.report().as_dict()["jobs"] == LENGTH)
    assert is_same(read(path.read_text()), "Rows", batches.report().as_dict())
    assert [each.name for each in tmp_path.iterdir()] == ["loading.prom"]
    with front(nb_workers=0) as batches:
        export(batches, textfile=path)
        list(batches)
    assert read(path.read_text())["prefetch_batches_total", "Rows"] == LENGTH - 1  # before 15 s have passed
    with front() as batches:
        with pytest.raises(FileNotFoundError):
            export(batches, port=0, textfile=tmp_path / "missing" / "loading.prom")
        assert "workers.export" not in {thread.name for thread in threading.enumerate()}  # nor is the port served


def test_a_file_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The loop goes on, and close() does not fail."""
    folder = tmp_path / "metrics"
    folder.mkdir()
    with front() as batches:
        export(batches, textfile=folder / "loading.prom", every_s=0.01)
        (folder / "loading.prom").unlink()
        folder.rmdir()
        wait_for(lambda: caplog.records)
        list(batches)
    texts = [record.message for record in caplog.records if "skipped" not in record.message]
    assert len(texts) == 1
    assert texts[0].startswith(f"figures cannot be written into {folder}/loading.prom: ")


def test_a_sequence_that_fit_has_not_read() -> None:
    with Rows() as sequence:
        assert scrape(export(sequence, port=0).port) == {}


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({}, ValueError, "export needs a port, such as port=9400, or a file"),
        ({"port": 65536}, ValueError, "port must be a port from 0 to 65535, not 65536"),
        ({"port": "9400"}, TypeError, "port must be a port from 0 to 65535, not '9400'"),
        ({"textfile": "loading.txt"}, ValueError, "textfile must end in .prom"),
        ({"port": 0, "to": "graphite"}, ValueError, "to must be one of 'prometheus', not 'graphite'"),
        ({"textfile": "loading.prom", "every_s": 0}, ValueError, "every_s must be a number of seconds > 0, not 0"),
        ({"port": 0, "batches": [1]}, TypeError, "batches must be a front-end or a sequence, not a list"),
    ],
)
def test_mistakes(given: Any, error: type[Exception], text: str) -> None:
    with front(nb_workers=0) as batches, pytest.raises(error, match=text):
        export(**{"batches": batches, **given})


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "workers.metrics.prometheus", raising=False)
    monkeypatch.delattr(workers.metrics, "prometheus", raising=False)
    with front(nb_workers=0) as batches, pytest.raises(ImportError, match="pip install prometheus_client"):
        export(batches, port=0)
