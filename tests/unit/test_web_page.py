"""The web page of a report: written, and read back."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from figures import DIED, MS, START, VERDICT, busy, jobs, report_of, serial, started, steps

from workers.report import units
from workers.report.report import (
    CacheFigures,
    EpochStart,
    FailedSample,
    FunctionFigures,
    Report,
    Slow,
    Spread,
    WorkerFigures,
)
from workers.report.timeline import LOOP, Incident, LoopStep, Span

EVIL = "</script><script>alert(1)</script><b> & <!-- \u2028 \udcff \"'"
VOID = {"meta", "link", "rect"}


class Reader(HTMLParser):
    """The page: its tables, texts and scripts. Raises where an element is not closed in its order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.texts: dict[str, list[str]] = {}  # {tag: the texts of such elements}
        self.table: list[list[str]] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag == "table":
            self.table = self.tables[str(dict(attrs)["id"])] = []
        if tag == "tr":
            self.table.append([])
        if tag in ("th", "td"):
            self.table[-1].append("")
        self.texts.setdefault(tag, []).append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in dict.fromkeys(self.open):
            self.texts[tag][-1] += data
            if tag in ("th", "td"):
                self.table[-1][-1] += data

    def of_id(self, name: str) -> list[list[str]]:
        """The rows of a table, without its head."""
        return self.tables[name][1:]

    def data(self) -> Any:
        return json.loads(self.texts["script"][0])


def page_of(report: Report, tmp_path: Path) -> Reader:
    return Reader(report.save(tmp_path / "report.html").read_text("utf-8"))


def full() -> Report:
    """A report in which nothing is missing, with names that are not kind."""
    timeline = busy().timeline
    evil = Span(0, 7, 7, START + 30 * MS, MS, ((EVIL, MS),))
    return dataclasses.replace(
        busy(),
        timeline=timeline._replace(
            spans=[evil, *timeline.spans], incidents=[*timeline.incidents, Incident(START, 0, EVIL, EVIL)]
        ),
        seconds=2.0,
        nbytes=4_000_000,
        wait=Spread(90, 0.5, 0.004, 0.07),
        step=Spread(89, 1.5, 0.014, 0.015),
        job=Spread(80, 3.2, 0.04, 0.05),
        stages={"source": Spread(80, 1.0, 0.01, 0.02), EVIL: Spread(80, 3.0, 0.03, 0.04)},
        depth=3.25,
        workers=[WorkerFigures(0, 4000, 40, 0.9, 0, 0.5, 7_000_000), WorkerFigures(1, None, 39, 0.8, 1, None, None)],
        slowest=[Slow(0, 5, 0.044), Slow(9, 99, 0.04)],
        starts=[EpochStart(0, 0.01, 0.07, EVIL)],
        choices=["1 to 2 workers: the loop has waited 41% of the time", EVIL],
        failures=[FailedSample(0, 3, 7, "skipped", EVIL, 2), FailedSample(1, 4, None, "retried", "OSError: x")],
        sources={EVIL: 30, "b": 10},
        cache=CacheFigures(12, 3_000_000, 9, 3, 0.02),
        functions={EVIL: FunctionFigures(0.03, 0.75, 2000.0)},
        parts={EVIL: 0.25},
    )


def test_figures(tmp_path: Path) -> None:
    report = full()
    page = page_of(report, tmp_path)
    said, rest = page.texts["h1"][0], page.texts["p"][0]
    assert f"{said} {rest}".replace("\xa0", " ") == VERDICT
    assert page.texts["title"] == ["The loop waits for data 12% of the time."]
    assert page.texts["b"] == ["45", "90", "500 ms", "2", "3.2", "4 MB"]
    spreads = [report.wait, report.step, report.job, *report.stages.values()]
    times = page.of_id("times")
    assert [row[1:4] for row in times] == [
        [*map(units.seconds, (each.median, each.p99, each.total))] for each in spreads
    ]
    assert [row[4] for row in times] == ["25 %", "75 %", "100 %", "25 %", "75 %"]
    assert [row[0] for row in times] == ["wait", "step", "job", "source", EVIL.replace("\udcff", "?")]


def test_tables(tmp_path: Path) -> None:
    page, evil = page_of(full(), tmp_path), EVIL.replace("\udcff", "?")
    cut = " ".join(evil.split())  # texts of several lines become one
    assert page.of_id("workers") == [
        ["0 (4000)", "90 %", "40", "0", "50 %", "7 MB"],
        ["1", "80 %", "39", "1", "", ""],
    ]
    assert page.of_id("slowest") == [["epoch 0, batch 5", "44 ms", "show"], ["epoch 9, batch 99", "40 ms", ""]]
    assert page.of_id("starts") == [["0", "10 ms", "70 ms", evil]]
    assert page.of_id("choices") == [["1 to 2 workers: the loop has waited 41% of the time", "0.700 s"], [evil, ""]]
    assert page.of_id("failures") == [
        ["0", "3", "7", "skipped", "2", cut],
        ["1", "4", "", "retried", "0", "OSError: x"],
    ]
    assert "Failures: 1 skipped, 1 retried" in page.texts["h2"]
    assert page.of_id("sources") == [[evil, "30", "75 %"], ["b", "10", "25 %"]]
    assert page.of_id("cache") == [["12", "3 MB", "9", "3", "20 ms"]]
    assert page.of_id("functions") == [[evil, "30 ms", "75 %", "2 KB"]]
    assert page.of_id("parts") == [[evil, "25 %"]]
    events = page.of_id("events")
    assert ["0.400 s", "worker 1", "died", "killed by SIGKILL"] in events
    assert len(events) == len(busy().timeline.incidents) + 1
    assert EVIL in [kind for kind, _ in page.data()["kinds"]]
    assert [0, 0, EVIL, " ".join(EVIL.split())] in page.data()["incidents"]


def test_the_timeline_is_that_of_the_report(tmp_path: Path) -> None:
    report = busy()
    data = page_of(report, tmp_path).data()
    assert data["lanes"] == ["worker 0", "worker 1"]
    kinds = [kind for kind, _ in data["kinds"]]
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for _, colour in data["kinds"])
    spans = [
        Span(lane, epoch, index, START + at, ns, tuple(zip((kinds[each] for each in of[::2]), of[1::2], strict=True)))
        for lane, epoch, index, at, ns, *of in data["jobs"]
    ]
    assert spans == sorted(report.timeline.spans, key=lambda span: span.start_ns)
    assert [LoopStep(START + asked, START + got, ready) for asked, got, ready in data["steps"]] == report.timeline.steps
    assert [400 * MS, 1, "died", DIED.text] in data["incidents"]
    assert data["length"] == max(span.start_ns + span.job_ns for span in spans) - START
    assert 0 <= data["view"][0] < data["view"][1] <= data["length"]


def test_jobs_of_the_loop_have_a_row_and_epochs_are_of_all_rows(tmp_path: Path) -> None:
    spans, waits = serial(20, 20 * MS, 10 * MS)
    report = report_of(spans, waits, [Incident(START, LOOP, "epoch", "0")], bound=0, num_workers=0, executor="serial")
    data = page_of(report, tmp_path).data()
    assert (data["lanes"], data["queue"]) == (["loop's jobs"], False)
    assert data["incidents"] == [[0, -1, "epoch", "0"]]


def test_a_job_that_ran_twice_is_shown_where_it_was_slow(tmp_path: Path) -> None:
    spans = [Span(0, 0, 5, START + at * MS, ms * MS) for at, ms in ((0, 10), (50, 40), (200, 20))]
    report = dataclasses.replace(report_of(spans, []), slowest=[Slow(0, 5, 0.04)])
    attributes = page_of(report, tmp_path).attributes
    assert ("button", "data-start", str(50 * MS)) in attributes
    assert ("button", "data-end", str(90 * MS)) in attributes


def test_it_needs_nothing_else_and_only_its_own_script_runs(tmp_path: Path) -> None:
    page = page_of(full(), tmp_path)
    loaded = [(tag, value) for tag, name, value in page.attributes if name in ("src", "href", "srcset", "action")]
    assert loaded == [("link", "data:,")]
    assert not [name for _, name, _ in page.attributes if name == "style" or name.startswith("on")]
    [style], [_, script] = page.texts["style"], page.texts["script"]
    assert not re.search(r"http|url\(|@import|import\(|fetch\(|innerHTML|eval\(", style + script)
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    [policy] = [value for _, name, value in page.attributes if name == "content" and value and "default-src" in value]
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}';")


def test_nothing_has_run(tmp_path: Path) -> None:
    page = page_of(report_of([], [], verdict="Too early to say: the loop has had 0 batches."), tmp_path)
    assert "Nothing has run yet." in page.texts["p"]
    assert page.texts["h1"] == ["Too early to say: the loop has had 0\xa0batches."]
    assert [each for each in page.texts["script"] if each][1:] == []
    assert set(page.tables) == {"times"}


def test_no_job_has_come_yet(tmp_path: Path) -> None:
    page = page_of(report_of([], [], started(2), num_workers=2, executor="thread"), tmp_path)
    assert page.data()["lanes"] == ["worker 0", "worker 1"]
    assert "threads" in page.texts["dt"]


def test_a_long_loop_is_a_small_page(tmp_path: Path) -> None:
    """As many jobs, steps, incidents and failures as are ever held."""
    incidents = [Incident(START + at * MS, at % 8, "died", "killed " * 100) for at in range(512)]
    failures = [FailedSample(at, at, at, "skipped", "ValueError: " + "long " * 200) for at in range(1000)]
    report = report_of([*jobs(8, 512, 90 * MS)], steps(4096, 4 * MS, 14 * MS), incidents)
    path = dataclasses.replace(report, failures=failures).save(tmp_path / "report.html")
    assert path.stat().st_size < 2_000_000


@pytest.mark.parametrize(
    ("path", "error", "text"),
    [
        ("report.htm", ValueError, r"path must end in .html, not '.*report.htm'"),
        (".html", ValueError, r"path must end in .html"),
        ("none/report.html", FileNotFoundError, r"there is no folder '.*none'"),
        (7, TypeError, r"path must be a path that ends in .html, not 7 \(int\)"),
    ],
)
def test_paths_that_cannot_be(path: Any, error: type[Exception], text: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=text):
        busy().save(tmp_path / path if isinstance(path, str) else path)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_leaves_the_last_page(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("the last one")
    with pytest.raises(AttributeError):
        dataclasses.replace(busy(), timeline=None).save(path)
    assert path.read_text() == "the last one"


def test_matplotlib_is_not_needed(tmp_path: Path) -> None:
    program = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parents[1] / "support"), str(Path(__file__).parents[2])]!r}
from figures import busy
busy().save({str(tmp_path / "report.html")!r})
assert not {{"matplotlib", "PIL"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
