"""Which workers are retried that could not be forked."""

from __future__ import annotations

from workers.process.fork_shortage import ForkShortage


def test_a_smaller_pool_retries_those_that_it_wants() -> None:
    shortage = ForkShortage()
    for number in (5, 1, 4):
        shortage.lost(number)
    shortage.answered(3)
    shortage.keep_below(3)
    assert shortage.take() is None  # not before it is due
    shortage.forked()
    assert shortage.take() == 1
    shortage.forked()
    assert shortage.take() is None
    assert shortage.left_s(None) is None
