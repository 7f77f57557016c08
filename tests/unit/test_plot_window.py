"""Which part of a timeline is drawn."""

from __future__ import annotations

from figures import MS, START, jobs, steps

from workers.report.pictures.plot_window import Window, lanes_of, window_of
from workers.report.timeline import LOOP, Incident, LoopStep, Span, Timeline

SECOND = 1000 * MS


def window(spans: list[Span], waits: list[LoopStep], incidents: list[Incident] | None = None) -> Window:
    found = window_of(Timeline(spans, waits, incidents or []))
    assert found is not None
    return found


def num_jobs(spans: list[Span], of: Window) -> int:
    return sum(of.overlaps(span.start_ns, span.start_ns + span.job_ns) for span in spans)


def test_nothing() -> None:
    assert window_of(Timeline([], [], [])) is None


def test_a_short_run_is_drawn_from_the_loops_first_wait() -> None:
    spans, waits = list(jobs(2, 60, 10 * MS)), steps(120, MS, 4 * MS, first_ns=50 * MS)
    found = window(spans, waits, [Incident(START + 5 * MS, 0, "started")])
    assert found.start_ns == START
    assert found.end_ns == max(*(s.start_ns + s.job_ns for s in spans), waits[-1].got_ns)
    assert found.second(START + 5 * MS) == 0.005


def test_steps_that_are_forgotten_are_not_drawn_as_idleness() -> None:
    """Of both only the last are held: before the first step that is held, its lane would be empty."""
    spans = [Span(0, 0, i, START + i * 10 * MS, 9 * MS) for i in range(100)]
    waits = [LoopStep(START + 500 * MS + i * MS, START + 500 * MS + i * MS + 1000, 1) for i in range(100)]
    assert window(spans, waits).start_ns == waits[0].asked_ns
    waits = [LoopStep(START + i * 10 * MS, START + i * 10 * MS + MS, 1) for i in range(100)]
    spans = [Span(0, 0, i, START + 500 * MS + i * MS, MS // 2) for i in range(100)]
    assert window(spans, waits).start_ns == spans[0].start_ns


def test_the_last_seconds_are_drawn() -> None:
    spans, waits = list(jobs(2, 300, 100 * MS)), steps(300, 5 * MS, 95 * MS)
    assert 9.9 < window(spans, waits).seconds <= 12


def test_of_long_jobs_more_seconds_are_drawn_but_not_hours() -> None:
    spans = list(jobs(2, 100, 2 * SECOND))
    assert 38 < window(spans, []).seconds < 45
    assert 59 < window(list(jobs(2, 100, 20 * SECOND)), []).seconds <= 60


def test_of_many_jobs_few_are_drawn() -> None:
    for num_workers, most in ((1, 120), (2, 240), (32, 1600)):
        spans = list(jobs(num_workers, 1000, 25_000))
        assert most / 2 < num_jobs(spans, window(spans, [])) <= most * 1.1


def test_of_many_steps_few_are_drawn() -> None:
    waits = steps(5000, 2000, 5000)
    found = window([], waits)
    assert sum(found.overlaps(step.asked_ns, step.got_ns) for step in waits) == 120


def test_workers_that_have_finished_long_before_the_last_steps_are_drawn() -> None:
    spans = list(jobs(2, 4000, 25_000))
    waits = steps(20_000, 4000, 9000)  # 100 ms longer
    found = window(spans, waits)
    assert num_jobs(spans, found) > 20
    assert any(found.overlaps(step.asked_ns, step.got_ns) for step in waits)


def test_workers_that_end_a_minute_later_are_not_waited_for() -> None:
    spans = list(jobs(2, 10, 10 * MS))
    last = max(span.start_ns + span.job_ns for span in spans)
    for later, end in ((60 * SECOND, last), (SECOND, last + SECOND)):
        assert window(spans, [], [Incident(last + later, 0, "ended")]).end_ns == end


def test_a_worker_that_has_only_started() -> None:
    assert window([], [], [Incident(START, 0, "started")]).seconds == 0.001


def test_lanes() -> None:
    spans = [*jobs(1, 5, MS), Span(4, 0, 9, START + 31 * MS, MS), Span(LOOP, 0, 10, START + 32 * MS, MS)]
    incidents = [Incident(START + 33 * MS, 6, "died"), Incident(START + 33 * MS, LOOP, "chosen")]
    timeline = Timeline(spans, [], incidents)
    assert lanes_of(timeline, window(spans, [], incidents), [0, 1]) == [0, 1, 4, 6]
