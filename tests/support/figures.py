"""Reports that are made up: what a front-end would have noted, without running one."""

from __future__ import annotations

from collections.abc import Iterator

from workers.report.report import Report, Spread, WorkerFigures
from workers.report.timeline import LOOP, STAGES, Incident, LoopStep, Span, Timeline

START = 98_765_000_000_000  # of the monotonic clock: of no meaning
MS = 1_000_000
VERDICT = "The loop waits for data 12% of the time. One more worker would help: each is busy 97% of the time."
DIED = Incident(START + 400 * MS, 1, "died", "killed by SIGKILL")
SHARES = (0.25, 0.1, 0.4, 0.2, 0.05)  # of the stages


def stages_of(job_ns: int, names: tuple[str, ...] = STAGES) -> tuple[tuple[str, int], ...]:
    return tuple((name, int(job_ns * share)) for name, share in zip(names, SHARES, strict=False))


def jobs(num_workers: int, num_jobs: int, job_ns: int, names: tuple[str, ...] = STAGES) -> Iterator[Span]:
    """The same number for each, one after the other; they differ a little in length."""
    for worker in range(num_workers):
        at = START + 30 * MS + worker * job_ns // num_workers
        for job in range(num_jobs):
            length = job_ns * (90 + (job * 8 + worker * 3) % 21) // 100
            index = job * num_workers + worker
            yield Span(worker, 0, index, at, length, stages_of(length, names))
            at += length + job_ns // 20


def steps(num: int, wait_ns: int, work_ns: int, bound: int = 8, first_ns: int = 0) -> list[LoopStep]:
    """The first one waits for ``first_ns``, if given."""
    found, at = [], START
    for step in range(num):
        got = at + (first_ns if first_ns and step == 0 else wait_ns)
        found.append(LoopStep(at, got, (step * 5) % (bound + 1)))
        at = got + work_ns
    return found


def serial(num: int, job_ns: int, work_ns: int) -> tuple[list[Span], list[LoopStep]]:
    """Jobs that the loop itself runs, each while it waits for it."""
    waits = steps(num, job_ns, work_ns, 0)
    return [Span(LOOP, 0, i, step.asked_ns, job_ns, stages_of(job_ns)) for i, step in enumerate(waits)], waits


def report_of(
    spans: list[Span],
    waits: list[LoopStep],
    incidents: list[Incident] | None = None,
    *,
    bound: int = 8,
    verdict: str = VERDICT,
    num_workers: int | None = None,
    executor: str = "process",
) -> Report:
    numbers = sorted({span.worker for span in spans} - {LOOP})
    if num_workers is None:
        num_workers = len(numbers)
    seconds = (waits[-1].got_ns - waits[0].asked_ns) / 1e9 if waits else 0.0
    nothing = Spread()
    return Report(
        seconds=seconds,
        num_batches=len(waits),
        nbytes=0,
        wait=nothing,
        step=nothing,
        job=nothing,
        stages={},
        depth=0.0,
        bound=bound,
        workers=[WorkerFigures(number, 4000 + number, 0, 0.9, 0, None, None) for number in range(num_workers)],
        slowest=[],
        segments_made=0,
        starts=[],
        nb_workers=num_workers,
        cores=2,
        executor=executor,
        choices=[],
        verdict=verdict,
        timeline=Timeline(spans, waits, incidents or [], bound),
    )


def started(num_workers: int) -> list[Incident]:
    """As workers start: 10 ms, then they are ready."""
    begun = [Incident(START + 5 * MS, worker, "started") for worker in range(num_workers)]
    return begun + [Incident(START + 25 * MS, worker, "ready") for worker in range(num_workers)]


def busy(num_workers: int = 2, num_jobs: int = 40) -> Report:
    """An ordinary run of one second or two; worker 1 has died and is back, and one worker was added."""
    incidents = [
        *started(num_workers),
        DIED,
        Incident(START + 430 * MS, 1, "ready"),
        Incident(START + 700 * MS, LOOP, "chosen", "1 to 2 workers: the loop has waited 41% of the time"),
        Incident(START + 900 * MS, LOOP, "epoch", "1"),
    ]
    spans = [span for span in jobs(num_workers, num_jobs, 40 * MS) if not _is_dead(span)]
    return report_of(spans, steps(90, 4 * MS, 14 * MS, first_ns=70 * MS), incidents)


def _is_dead(span: Span) -> bool:
    return span.worker == 1 and DIED.at_ns < span.start_ns + span.job_ns and span.start_ns < DIED.at_ns + 30 * MS
