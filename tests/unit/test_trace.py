"""Traces: written, read back, and held against the format."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from figures import DIED, MS, START, VERDICT, busy, jobs, report_of, serial, started, steps
from trace_format import Event, check_trace, lane

from workers.report.report import Report
from workers.report.timeline import LOOP, Incident, LoopStep, Span


def events_of(report: Report, tmp_path: Path) -> list[Event]:
    return check_trace(json.loads(report.trace(tmp_path / "trace.json").read_text()))


def test_a_run_with_workers(tmp_path: Path) -> None:
    report = busy()
    events = events_of(report, tmp_path)
    for worker in (0, 1):
        spans = [span for span in report.timeline.spans if span.worker == worker]
        mine = [event for event in lane(events, f"worker {worker}") if event["name"] == "job"]
        assert [event["args"] for event in mine] == [{"epoch": 0, "index": span.index} for span in spans]
        assert [event["ts"] for event in mine] == [(span.start_ns - START) / 1000 for span in spans]  # microseconds
        assert [event["dur"] for event in mine] == pytest.approx([span.job_ns / 1000 for span in spans])
    [died] = [event for event in lane(events, "worker 1") if event["name"] == "died"]
    assert died["args"] == {"text": DIED.text}
    assert (died["ts"], died["s"]) == (400_000, "t")


def test_stages_are_within_their_job(tmp_path: Path) -> None:
    span = Span(0, 2, 7, START, 1000, (("source", 600), ("transport", 300)))
    job, source, transport = lane(events_of(report_of([span], []), tmp_path), "worker 0")
    assert [(each["name"], each["ts"], each["dur"]) for each in (job, source, transport)] == [
        ("job", 0, 1.0),
        ("source", 0, 0.6),
        ("transport", 0.6, 0.3),
    ]
    assert source["args"] == {"epoch": 2, "index": 7}


def test_stages_that_are_longer_than_their_job_are_cut(tmp_path: Path) -> None:
    span = Span(0, 0, 0, START, 1000, (("source", 900), ("augmenter", 300), ("transport", 50)))
    _, *stages = lane(events_of(report_of([span], []), tmp_path), "worker 0")  # nesting is checked
    assert sum(stage["dur"] for stage in stages) == pytest.approx(1.0)


def test_the_loop(tmp_path: Path) -> None:
    waits = [LoopStep(START + 100, START + 400, 0), LoopStep(START + 1_000, START + 1_100, 3)]
    events = events_of(report_of([], waits), tmp_path)
    found = [(event["name"], event["ts"], event["dur"]) for event in lane(events, "the loop")]
    assert found == [("wait", 0, 0.3), ("step", 0.3, 0.6), ("wait", 0.9, 0.1)]
    counted = [(event["ts"], event["args"]["n"]) for event in events if event["ph"] == "C"]
    assert counted == [(0, 0), (0.9, 3)]


def test_jobs_of_the_loop_have_a_lane_even_where_they_begin_before_it_asks(tmp_path: Path) -> None:
    waits = [LoopStep(START + 100, START + 400, 0), LoopStep(START + 1_000, START + 1_100, 0)]
    events = events_of(report_of([Span(LOOP, 0, 1, START + 900, 150)], waits), tmp_path)
    assert [event["args"]["index"] for event in lane(events, "jobs of the loop")] == [1]
    spans, waits = serial(5, 2 * MS, MS)
    assert len(lane(events_of(report_of(spans, waits), tmp_path), "jobs of the loop")) == 5 * 6


def test_what_is_about_all_lanes_is_of_the_process(tmp_path: Path) -> None:
    incidents = [*started(2), Incident(START, LOOP, "chosen", "2 to 3"), Incident(START + 1, 7, "unheard of")]
    events = events_of(report_of([], steps(2, MS, MS), incidents), tmp_path)
    chosen, *_ = (event for event in events if event["ph"] == "i" and event["name"] == "chosen")
    assert (chosen["s"], chosen["args"]) == ("p", {"text": "2 to 3"})
    assert [event["name"] for event in lane(events, "worker 7")] == ["unheard of"]


def test_nothing_has_run(tmp_path: Path) -> None:
    assert {event["ph"] for event in events_of(report_of([], []), tmp_path)} == {"M"}


def test_it_is_whole(tmp_path: Path) -> None:
    """Not only the last seconds; and it says what was found."""
    report = report_of(list(jobs(2, 3000, 25_000)), steps(4000, 5000, 9000))
    path = tmp_path / "trace.json.gz"
    assert report.trace(str(path)) == path
    whole = json.loads(gzip.decompress(path.read_bytes()))
    names = [event["name"] for event in check_trace(whole)]
    assert (names.count("job"), names.count("wait")) == (6000, 4000)
    assert whole["otherData"] == {"verdict": VERDICT, "nb_workers": 2, "cores": 2, "bound": 8}


@pytest.mark.parametrize(
    ("path", "error", "text"),
    [
        ("trace.txt", ValueError, r"path must end in .json or .json.gz, not '.*trace.txt'"),
        ("trace.gz", ValueError, r"path must end in .json or .json.gz"),
        (".json", ValueError, r"path must end in .json or .json.gz"),
        ("none/trace.json", FileNotFoundError, r"path '.*trace.json' cannot be written: there is no folder '.*none'"),
        ("file.json/trace.json", NotADirectoryError, r"'.*file.json' is not a folder"),
        ("folder.json", IsADirectoryError, r"path '.*folder.json' cannot be written: it is a folder"),
        (7, TypeError, r"path must be a path that ends in .json or .json.gz, not 7 \(int\)"),
    ],
)
def test_paths_that_cannot_be(path: Any, error: type[Exception], text: str, tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "file.json").touch()
    with pytest.raises(error, match=text):
        busy().trace(tmp_path / path if isinstance(path, str) else path)
    assert {each.name for each in tmp_path.iterdir()} == {"folder.json", "file.json"}


@pytest.mark.parametrize(
    "event",
    [
        {"ph": "X", "name": "job", "pid": 1, "tid": 0, "ts": 5, "args": {}},
        {"ph": "X", "name": "job", "pid": 1, "tid": 0, "ts": 5, "dur": -1, "args": {}},
        {"ph": "X", "name": "job", "pid": 1, "tid": 0, "ts": 5, "dur": 10, "args": {}},
        {"ph": "X", "name": "job", "pid": 1, "tid": 3, "ts": 0, "dur": 1, "args": {}},
        {"ph": "C", "name": "n", "pid": 1, "ts": 0, "args": {"n": "many"}},
        {"ph": "i", "name": "died", "pid": 1, "tid": 0, "ts": 0, "s": "x", "args": {}},
        {"ph": "M", "name": "thread_title", "pid": 1, "tid": 0, "args": {"name": "a"}},
    ],
)
def test_the_reader_is_strict(event: Event) -> None:
    named = {"ph": "M", "name": "thread_name", "pid": 1, "tid": 0, "args": {"name": "the loop"}}
    there = {"ph": "X", "name": "wait", "pid": 1, "tid": 0, "ts": 0, "dur": 10, "args": {}}
    whole = {"traceEvents": [named, there], "displayTimeUnit": "ms", "otherData": {}}
    check_trace(whole)
    with pytest.raises((AssertionError, KeyError)):
        check_trace({**whole, "traceEvents": [named, there, event]})
