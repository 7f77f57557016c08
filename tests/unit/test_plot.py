"""Pictures of reports: written, read back, and looked at."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from figures import DIED, MS, START, VERDICT, busy, jobs, report_of, serial, started, steps
from PIL import Image

from workers.report.report import Report
from workers.report.timeline import LOOP, STAGES, Incident, Span

pytestmark = pytest.mark.needs("matplotlib")

COLOURS = {  # of Okabe and Ito
    **dict(zip(STAGES, ("#56b4e9", "#0072b2", "#e69f00", "#009e73", "#cc79a7"), strict=True)),
    "waiting": "#d55e00",
    "working": "#dddddd",
}


@pytest.fixture(scope="module", autouse=True)
def fonts(tmp_path_factory: pytest.TempPathFactory) -> None:
    """matplotlib keeps the files of its fonts open, once they are used: not what a test has left behind."""
    busy().plot(tmp_path_factory.mktemp("fonts") / "report.png")


def texts_of(report: Report, tmp_path: Path) -> list[str]:
    """The words of its picture."""
    root = ET.fromstring(report.plot(tmp_path / "report.svg").read_bytes())
    return [each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}text")]


def shares_of(path: Path) -> dict[str, float]:
    """{what has a colour of its own: its share of a PNG}"""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    rgb = {name: [int(colour[at : at + 2], 16) for at in (1, 3, 5)] for name, colour in COLOURS.items()}
    return {name: float((pixels == colour).all(-1).mean()) for name, colour in rgb.items()}


def with_incidents(report: Report, incidents: list[Incident]) -> Report:
    timeline = report.timeline._replace(incidents=[*report.timeline.incidents, *incidents])
    return dataclasses.replace(report, timeline=timeline)


def eventful(num_workers: int) -> Report:
    """Much befalls its workers, all at once."""
    deaths = [Incident(START + (300 + 70 * i) * MS, i % 4, "died", "killed by SIGKILL") for i in range(16)]
    epochs = [Incident(START + (20 + 40 * i) * MS, LOOP, "epoch", str(i)) for i in range(40)]
    chosen = [Incident(START + (600 + 300 * i) * MS, LOOP, "chosen", "2 to 3: " + "waiting " * 9) for i in range(4)]
    stalled = [Incident(START + 1600 * MS, worker, "stalled", "30 s in augment") for worker in range(num_workers)]
    report = dataclasses.replace(busy(num_workers), verdict="What helps is told at length. " * 12)
    return with_incidents(report, deaths + epochs + chosen + stalled)


def test_a_png(tmp_path: Path) -> None:
    path = tmp_path / "report.png"
    assert busy().plot(str(path)) == path
    assert Image.open(path).format == "PNG"
    assert Image.open(path).width == 1440
    shares = shares_of(path)
    assert min(shares[stage] for stage in STAGES[:4]) > 0.005
    assert shares["augmenter"] > shares["source"] > shares["get_examples"]  # as long as they took
    assert shares["working"] > shares["waiting"] > 0.01


def test_a_pdf(tmp_path: Path) -> None:
    assert busy().plot(tmp_path / "report.PDF").read_bytes().startswith(b"%PDF")


def test_words(tmp_path: Path) -> None:
    texts = texts_of(busy(), tmp_path)
    assert VERDICT in texts
    assert "53.8 batches/s, 2 workers, 2 cores" in texts
    assert {"worker 0", "worker 1", "the loop", "bound: 8", "seconds", *STAGES} <= set(texts)
    assert {"started", "ready", "died", "waiting for a batch", "working with it"} <= set(texts)
    assert f"died: {DIED.text}" in texts
    assert any(text.startswith("1 to 2 workers") for text in texts)
    assert "epoch 1" in texts
    assert "0.0" in texts  # the time begins there


def test_epochs_that_would_hide_the_lanes_are_left_out(tmp_path: Path) -> None:
    epochs = [Incident(START + i * MS, LOOP, "epoch", str(i)) for i in range(1000)]
    texts = texts_of(with_incidents(busy(), epochs), tmp_path)
    assert not [text for text in texts if text.startswith("epoch")]
    assert any(text.startswith("1 to 2 workers") for text in texts)


def test_jobs_of_the_loop(tmp_path: Path) -> None:
    spans, waits = serial(40, 20 * MS, 10 * MS)
    report = report_of(spans, waits, bound=0, num_workers=0, executor="serial", verdict="")
    shares = shares_of(report.plot(tmp_path / "report.png"))
    assert min(shares[name] for name in (*STAGES[:4], "waiting", "working")) > 0.002
    texts = texts_of(report, tmp_path)
    assert "33.6 batches/s, no workers, 2 cores" in texts
    assert "seconds" in texts
    assert not [text for text in texts if text.startswith(("worker", "bound"))]


def test_nothing_has_run(tmp_path: Path) -> None:
    assert texts_of(report_of([], []), tmp_path) == ["Nothing has run yet."]


def test_no_job_has_come_yet(tmp_path: Path) -> None:
    texts = texts_of(report_of([], [], started(2), num_workers=2, executor="thread"), tmp_path)
    assert {"2 threads, 2 cores", "worker 1", "started", "ready"} <= set(texts)


def test_tiny_batches_are_few_shapes(tmp_path: Path) -> None:
    report = report_of(list(jobs(2, 5000, 25_000)), steps(9000, 4000, 9000, 600), bound=600)
    assert len(texts_of(report, tmp_path)) < 60
    drawn = (tmp_path / "report.svg").read_bytes()
    assert len(drawn) < 200_000
    assert drawn.count(b"<path") < 100


def test_tiny_jobs_of_which_few_were_noted_are_seen_and_it_says_so(tmp_path: Path) -> None:
    """A job of 25 us in each 10 ms is a fortieth of a pixel wide."""
    spans = [Span(0, 0, i * 100, START + i * 10 * MS, 25_000, (("source", 25_000),)) for i in range(100)]
    waits = [step._replace(num_ready=3) for step in steps(119, 2 * MS, 6 * MS)]
    path = report_of(spans, waits).plot(tmp_path / "report.png")
    assert shares_of(path)["source"] > 0.003
    few = report_of(spans[::10], waits)
    assert "only some of the tiny jobs are drawn" in " ".join(texts_of(few, tmp_path))
    assert "tiny jobs" not in " ".join(texts_of(busy(), tmp_path))


def test_stages_that_nobody_knows(tmp_path: Path) -> None:
    spans = list(jobs(2, 20, 30 * MS, ("source", "pay $5 or $6", "decode")))
    texts = texts_of(report_of(spans, steps(40, 2 * MS, 10 * MS)), tmp_path)
    assert {"source", "pay $5 or $6", "decode", "other"} <= set(texts)
    assert "#f0e442" in (tmp_path / "report.svg").read_text()


def test_jobs_without_stages(tmp_path: Path) -> None:
    spans = [Span(0, 0, i, START + i * 10 * MS, 9 * MS) for i in range(20)]
    assert "other" in texts_of(report_of(spans, []), tmp_path)


@pytest.mark.parametrize("num_workers", [2, 32])
def test_no_word_lies_over_another(num_workers: int, tmp_path: Path) -> None:
    from matplotlib.text import Text

    from workers.report.pictures.plot_page import page

    figure = page(eventful(num_workers))
    figure.draw_without_rendering()
    boxes = {}
    out_of_view = {
        tick.label1
        for axes in figure.axes
        for axis, (low, high) in ((axes.xaxis, sorted(axes.get_xlim())), (axes.yaxis, sorted(axes.get_ylim())))
        for tick in axis.get_major_ticks()
        if not low <= tick.get_loc() <= high
    }
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and text not in out_of_view:
            boxes[text.get_text(), id(text)] = text.get_window_extent()
    found = {words for words, _ in boxes}
    assert {f"worker {worker}" for worker in range(num_workers)} <= found
    assert sum(words.startswith("died: ") for words in found) >= 1
    for (one, box), (other, other_box) in combinations(boxes.items(), 2):
        assert not box.padded(-1).overlaps(other_box.padded(-1)), f"{one[0]!r} lies over {other[0]!r}"
    for words, box in boxes.items():
        inside = (box.x0, box.y0, figure.bbox.x1 - box.x1, figure.bbox.y1 - box.y1)
        assert min(inside) >= -1, f"{words[0]!r} is cut off"
    assert len(eventful(num_workers).plot(tmp_path / "report.svg").read_bytes()) < 1_000_000


@pytest.mark.parametrize(
    ("path", "error", "text"),
    [
        ("report.bmp", ValueError, r"path must end in .png or .svg or .pdf, not '.*report.bmp'"),
        ("report", ValueError, r"path must end in .png or .svg or .pdf"),
        ("none/report.png", FileNotFoundError, r"there is no folder '.*none'"),
        (None, TypeError, r"path must be a path that ends in .png or .svg or .pdf, not None \(NoneType\)"),
    ],
)
def test_paths_that_cannot_be(path: Any, error: type[Exception], text: str, tmp_path: Path) -> None:
    broken = dataclasses.replace(busy(), timeline=None)  # so that it fails later, if it is drawn first
    with pytest.raises(error, match=text):
        broken.plot(tmp_path / path if isinstance(path, str) else path)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_drawn_leaves_the_last_picture(tmp_path: Path) -> None:
    path = tmp_path / "report.png"
    path.write_bytes(b"the last one")
    with pytest.raises(AttributeError):
        dataclasses.replace(busy(), timeline=None).plot(path)
    assert path.read_bytes() == b"the last one"


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        busy().plot(tmp_path / "report.png")
    assert not list(tmp_path.iterdir())


def test_the_users_matplotlib_is_left_alone(tmp_path: Path) -> None:
    """Nothing is imported before it is needed, the user's style is not used, and stays."""
    program = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parents[1] / "support"), str(Path(__file__).parents[2])]!r}
import workers
from figures import busy
assert not {{"matplotlib", "PIL", "tensorflow"}} & set(sys.modules), "imported too early"
import matplotlib
matplotlib.rcParams["figure.facecolor"] = "black"
matplotlib.rcParams["text.usetex"] = True
matplotlib.rcParams["savefig.dpi"] = 10
before = dict(matplotlib.rcParams)
print(busy().plot({str(tmp_path / "report.png")!r}))
assert dict(matplotlib.rcParams) == before
pyplot = sys.modules.get("matplotlib.pyplot")
assert pyplot is None or not pyplot.get_fignums()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    picture = Image.open(re.sub(r"\n", "", done.stdout)).convert("RGB")
    assert (picture.width, picture.getpixel((2, 2))) == (1440, (255, 255, 255))
