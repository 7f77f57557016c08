"""A report as it is printed."""

from __future__ import annotations

import dataclasses
from typing import Any

from figures import report_of

from workers.report.report import EpochStart, Report, Slow, Spread, WorkerFigures

MANY = Spread(1200, 1.25, 0.001, 0.0123)
TABLE = """\
Input-bound: the loop waited 38 % of the time. A job takes 21 ms on average (augmenter: 13 % of it).
  The loop's own work takes 5 ms a batch: 5 workers would keep up; this machine has 8 cores.

batches           1,200 in 3.25 s         369 a second
bytes             385 MB                  118 MB a second
queue             0.4 ready on average    at most 1,024 ahead
workers           12 (process)            8 cores
shared memory     37 pieces made

                      median        p99     in all      share
wait                    1 ms    12.3 ms     1.25 s       38 %
step                 1.67 ms    31.2 ms        2 s       62 %
job                  21.5 ms     123 ms    1,234 s      100 %
  get_examples          1 ms    12.3 ms     1.25 s      0.1 %
  function_to_run    21.5 ms     123 ms    1,234 s      100 %

worker                  busy       jobs   restarts        CPU     memory
0 (4194304)             98 %        600          3       96 %     1.2 GB
11                     0.4 %  1,234,567          0

slowest (epoch/index): 1234/123456 1.23 s, 1234/123457 1.12 s, 1234/123458 1.02 s,
  1234/123459 1.02 s, 1234/123460 999 ms
epoch 3: started in 12 ms, first batch after 34 ms (the sequence had changed, and was sent to the
  workers again)
chosen: 12 workers: the loop waited 25 % of the time
"""


def report(**changes: Any) -> Report:
    verdict = (
        "Input-bound: the loop waited 38 % of the time. A job takes 21 ms on average (augmenter: 13 % of it). The "
        "loop's own work takes 5 ms a batch: 5 workers would keep up; this machine has 8 cores."
    )
    job = Spread(2400, 1234.0, 0.0215, 0.123)
    why = "the sequence had changed, and was sent to the workers again"
    figures = {
        "seconds": 3.25,
        "num_batches": 1200,
        "nbytes": 385_000_000,
        "wait": MANY,
        "step": Spread(1199, 2.0, 0.00167, 0.0312),
        "job": job,
        "stages": {"get_examples": MANY, "function_to_run": job},
        "depth": 0.41,
        "bound": 1024,
        "workers": [
            WorkerFigures(0, 4194304, 600, 0.98, 3, 0.96, 1_200_000_000),
            WorkerFigures(11, None, 1_234_567, 0.004, 0, None, None),
        ],
        "slowest": [Slow(1234, 123_456 + at, seconds) for at, seconds in enumerate((1.23, 1.12, 1.02, 1.02, 0.999))],
        "segments_made": 37,
        "starts": [EpochStart(3, 0.012, 0.034, why)],
        "nb_workers": 12,
        "cores": 8,
        "choices": ["12 workers: the loop waited 25 % of the time"],
        "verdict": verdict,
    }
    return dataclasses.replace(report_of([], []), **figures | changes)


def test_a_whole_table() -> None:
    assert str(report()).splitlines() == TABLE.splitlines()


def test_no_line_is_too_wide_and_no_columns_run_into_each_other() -> None:
    huge = Spread(10**9, 1_234_567.0, 12_345.0, 123_456.0)
    text = str(report(wait=huge, step=huge, job=huge, num_batches=10**9, seconds=1_234_567.0))
    assert max(map(len, text.splitlines())) <= 100
    assert "12,345 s  123,456 s 1,234,567 s" in text


def test_of_a_loop_without_workers() -> None:
    text = str(report(nb_workers=0, executor="serial", workers=[], segments_made=0, nbytes=0, bound=0, cores=1))
    assert "workers           0 (serial)              1 core\n" in text
    assert not [word for word in ("queue", "shared memory", "bytes", "restarts") if word in text]


def test_before_the_first_batch() -> None:
    text = str(report_of([], [], verdict="Too early to say."))
    assert text.startswith("Too early to say.\n\nbatches           0 in 0 s")
