"""What the schedule makes of what workers are seen in."""

from __future__ import annotations

from bench import Bench

from workers.engine.worker_loads import UNBEGUN_NS


def test_a_worker_that_was_stopped_as_it_had_finished_a_job() -> None:
    """It is seen in a job that it has told of: what it was sent since, others take."""
    bench = Bench(max_queue_size=1)
    bench.schedule.begin(0, 3)
    bench.turn()
    (finished,) = bench.sent[0]
    bench.answer(0)
    bench.turn()
    bench.take()
    bench.turn()
    (sent,) = bench.sent[0]
    for now_ns in (1, UNBEGUN_NS + 2):
        bench.schedule.saw(0, finished.sending, 1, now_ns)
    assert bench.schedule.may_relieve()
    assert bench.schedule.to_relieve(UNBEGUN_NS + 2) == {0: sent.sending}
    ((helper, rows),) = bench.schedule.relieve({0: sent.sending})
    assert (helper, [row.index for row in rows]) == (1, [1])
    bench.schedule.check()
