"""The web page of real loops, in a real browser: no error, and its timeline zooms, moves and tells about jobs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Page, browser, program
from causes import Sleeping, augmented
from faulty import wait_for
from PIL import Image

from workers import Report, SequenceArray

TIMELINE = "document.querySelector('#timeline')"
NAME = "</script><b>alert"


def halve(batch: Any) -> Any:
    return batch


halve.__qualname__ = NAME


@pytest.fixture(scope="module")
def report() -> Report:
    """A loop with two workers, one of which was killed."""
    with augmented(0.002).map(halve).prefetch(nb_workers=2) as batches:
        for epoch in range(2):
            for at, _ in enumerate(batches):
                if (epoch, at) == (0, 20):
                    os.kill(wait_for(lambda: batches.report().workers[1].pid), signal.SIGKILL)
        return batches.report()


@pytest.fixture
def page() -> Iterator[Page]:
    if program() is None:
        pytest.skip("no Chromium is installed")
    with browser() as page:
        yield page
        assert page.problems == []
        assert all(url.startswith(("file:", "data:")) for url in page.requests)


def opened(page: Page, report: Report, tmp_path: Path) -> None:
    page.open(report.save(tmp_path / "report.html").as_uri())


def shown(page: Page) -> tuple[float, float]:
    start, end = page.run(f"[{TIMELINE}.dataset.start, {TIMELINE}.dataset.end]")
    return float(start), float(end)


def wait_until(page: Page, condition: str) -> None:
    page.run(f"new Promise(done => (function look() {{ {condition} ? done(1) : setTimeout(look, 5) }})())")


def middle(page: Page, row: str) -> tuple[float, float]:
    """The middle of a row of the timeline, in the window."""
    page.run(f"{TIMELINE}.scrollIntoView({{block: 'center'}})")
    page.frame()
    wait_until(page, "performance.now() - scrolledAt > 300")
    x, y, width = page.run(f"(({{x, y, width}}) => [x, y, width])({TIMELINE}.getBoundingClientRect())")
    within = page.run(f"(row => row.top + row.height / 2)(rows.find(each => each.name === '{row}'))")
    return x + width / 2, y + within


def tip(page: Page) -> list[str]:
    """The lines of the tooltip; none if it is hidden."""
    text = page.run("(tip => tip.hidden ? '' : tip.innerText)(document.querySelector('#tip'))")
    return [line for line in text.splitlines() if line]


def test_zoom_and_tooltip(report: Report, page: Page, tmp_path: Path) -> None:
    page.look(1280)
    opened(page, report, tmp_path)
    assert page.run("document.querySelectorAll('#functions b').length") == 0
    assert page.run("document.querySelector('#functions tbody th').textContent") == NAME
    length = page.run("data.length") / 1e9
    start, end = shown(page)
    assert 0 <= start < end <= length

    x, y = middle(page, "worker 0")
    page.mouse("mouseWheel", x, y, deltaX=0, deltaY=-240)
    near = shown(page)
    assert start < near[0] < near[1] < end
    page.mouse("mouseWheel", x, y, deltaX=0, deltaY=120)
    assert near[1] - near[0] < shown(page)[1] - shown(page)[0] < end - start
    before = shown(page)
    page.mouse("mouseWheel", x, y, deltaX=60, deltaY=0)
    assert shown(page)[0] > before[0]

    page.mouse("mousePressed", x, y, button="left", clickCount=1)  # drags it to the right
    page.mouse("mouseMoved", x + 100, y, button="left", buttons=1)
    page.mouse("mouseReleased", x + 100, y, button="left", clickCount=1)
    assert shown(page)[0] < before[0]

    span = next(span for span in reversed(report.timeline.spans) if span.worker == 0)
    at = page.run(f"jobs.find(job => job.epoch === {span.epoch} && job.index === {span.index} && job.lane === 0).start")
    page.run(f"show({at} - 1e6, {at} + {span.job_ns} + 1e6)")
    page.mouse("mouseMoved", x + 1, y)
    title, where, *stages = tip(page)
    assert title == f"batch {span.index} of epoch {span.epoch}"
    assert where.startswith(f"worker 0: {page.run(f'duration({span.job_ns})')}, from ")
    for stage, ns in span.stages:
        assert {stage, page.run(f"duration({ns})")} <= set(stages)
    page.mouse("mouseMoved", x, 5)
    assert tip(page) == []

    for count in (1, 2):
        page.mouse("mousePressed", x, y, button="left", clickCount=count)
        page.mouse("mouseReleased", x, y, button="left", clickCount=count)
    assert shown(page) == pytest.approx((0, length), abs=1e-9)
    scrolled = page.run("scrollY")
    page.mouse("mouseWheel", x, y, deltaX=0, deltaY=120)  # nothing more to show: the page scrolls instead
    wait_until(page, f"scrollY > {scrolled}")
    assert shown(page) == pytest.approx((0, length), abs=1e-9)
    x, y = middle(page, "worker 0")
    page.run("scrolledAt = Infinity")  # while it scrolls, it does not zoom
    page.mouse("mouseWheel", x, y, deltaX=0, deltaY=-120)
    assert shown(page) == pytest.approx((0, length), abs=1e-9)


def test_keys_and_buttons(report: Report, page: Page, tmp_path: Path) -> None:
    page.look(1280)
    opened(page, report, tmp_path)
    length = page.run("data.length") / 1e9
    page.run(f"{TIMELINE}.focus()")
    page.press("0")
    assert shown(page) == pytest.approx((0, length), abs=1e-9)
    page.press("+")
    one = shown(page)
    assert 0 < one[0] < one[1] < length
    page.press("ArrowRight")
    assert shown(page)[0] > one[0]
    page.press("ArrowLeft")
    assert shown(page) == pytest.approx(one)
    page.press("-")
    assert shown(page) == pytest.approx((0, length), abs=1e-9)
    page.press("ArrowDown")  # the first row below the loop's that has jobs
    first = tip(page)
    assert first[0].startswith("batch ") or first[0] in ("started", "ready")
    page.press("ArrowRight", modifiers=8)
    assert tip(page) not in ([], first)
    page.press("Escape")
    assert tip(page) == []
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"

    for label in ("Zoom in", "Zoom in", "Move left"):
        page.run(f"document.querySelector('[aria-label=\"{label}\"]').click()")
    assert shown(page)[1] - shown(page)[0] == pytest.approx(length / 2.25)
    page.run("document.querySelector('[aria-label=\"Show all\"]').click()")
    assert shown(page) == pytest.approx((0, length), abs=1e-9)

    slow = report.slowest[0]
    page.run("document.querySelector('#slowest .show').click()")
    assert tip(page)[0] == f"batch {slow.index} of epoch {slow.epoch}"
    assert shown(page)[1] - shown(page)[0] < length
    died_row = "[...document.querySelectorAll('#events tr')].find(row => /died/.test(row.innerText))"
    page.run(f"{died_row}.querySelector('.show').click()")
    died = page.run("incidents.find(each => each.kind === 'died').start") / 1e9
    assert shown(page)[0] <= died <= shown(page)[1]


def test_narrow_and_dark(report: Report, page: Page, tmp_path: Path) -> None:
    colours = set()
    page.look(400, ratio=2, touch=True)
    opened(page, report, tmp_path)
    for width, scheme in ((400, "light"), (400, "dark"), (1280, "dark"), (1280, "light")):
        page.look(width, scheme=scheme, ratio=2, touch=width == 400)
        assert page.run("document.documentElement.scrollWidth") <= width, f"{width}: the page scrolls sideways"
        assert page.run(f"{TIMELINE}.width / {TIMELINE}.clientWidth") == pytest.approx(2, abs=0.01)
        ink, paper = page.run("(of => [of.color, of.backgroundColor])(getComputedStyle(document.body))")
        colours.add((ink, paper))
        middle(page, "loop")
        box = page.run(f"(({{x, y, width, height}}) => [x, y, width, height])({TIMELINE}.getBoundingClientRect())")
        clip = dict(zip(("x", "y", "width", "height"), box, strict=True))
        page.screenshot(tmp_path / "page.png", clip={**clip, "y": clip["y"] + page.run("scrollY"), "scale": 1})
        lane = tuple(int(page.run("theme.lane")[at : at + 2], 16) for at in (1, 3, 5))
        assert (np.asarray(Image.open(tmp_path / "page.png").convert("RGB")) == lane).all(-1).mean() > 0.05, scheme
    assert len(colours) == 2
    assert page.run("getComputedStyle(document.documentElement).getPropertyValue('--lane')") == page.run("theme.lane")

    page.look(400, ratio=2, touch=True)
    x, y = middle(page, "worker 0")
    span = page.run("(job => [job.start, job.end, job.index])(jobs.findLast(job => job.lane === 0))")
    page.run(f"show({span[0]}, {span[1]})")
    touch = {"x": x, "y": y}
    page.send("Input.dispatchTouchEvent", type="touchStart", touchPoints=[touch])
    page.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    page.frame()
    assert tip(page)[0].startswith(f"batch {span[2]} of epoch ")
    before = shown(page)
    fingers = [{"x": x - 20, "y": y, "id": 0}, {"x": x + 20, "y": y, "id": 1}]
    page.send("Input.dispatchTouchEvent", type="touchStart", touchPoints=fingers)
    for by in (40, 60, 80):
        fingers = [{"x": x - by, "y": y, "id": 0}, {"x": x + by, "y": y, "id": 1}]
        page.send("Input.dispatchTouchEvent", type="touchMove", touchPoints=fingers)
    page.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    page.frame()
    assert shown(page)[1] - shown(page)[0] == pytest.approx((before[1] - before[0]) / 4, rel=0.05)


def test_other_loops(page: Page, tmp_path: Path) -> None:
    """Nothing has run; no workers; threads, chosen by "auto"."""
    with SequenceArray({"x": np.arange(2000)}, seed=1).prefetch(nb_workers=0) as batches:
        opened(page, batches.report(), tmp_path)
        assert "Nothing has run yet." in page.run("document.body.innerText")
        for _ in batches:
            pass
        opened(page, batches.report(), tmp_path)
    assert page.run("rows.map(row => row.name)") == ["", "loop", "loop's jobs"]
    with Sleeping(400, 0.01).prefetch(executor="thread") as batches:
        for _ in batches:
            if batches.report().choices:
                break
        report = batches.report()
    opened(page, report, tmp_path)
    [choice] = report.choices
    assert page.run("document.querySelector('#choices tbody th').textContent") == choice
    assert page.run("lines.find(line => line.kind === 'chosen').text") == " ".join(choice.split())
    page.run("document.querySelector('#choices .show').click()")
    assert shown(page)[0] <= page.run("lines.find(line => line.kind === 'chosen').start") / 1e9 <= shown(page)[1]
