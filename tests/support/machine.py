"""Hypothesis draws a pipeline, and steps of a loop over it; each batch is compared with the model.

Each kind of workers is a machine of its own: what is cheap is drawn often.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import types
from typing import Any

import hypothesis
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from model import Word
from pipelines import (
    SOURCES,
    WITH_HOOKS,
    WITH_SEED,
    Loop,
    Spec,
    copies,
    failing,
    is_kept,
    kept_server,
    made,
    modelled,
    noisy,
    noisy_by_numpy,
    spread,
    spread_and_fail,
    two,
)
from scripted import have, scripted

from workers import SequenceMap, StateError

MANY = 1_000_000  # retries: what is killed must not be given up
MOST = 50  # batches that are read at once
YIELDING = spread, spread_and_fail


# -- pipelines that mean something


class Chain:
    """What the words so far allow to come next."""

    def __init__(self, source: str, may_draw_by_numpy: bool) -> None:
        self.has_index = source != "iterable"
        self.may_draw_by_numpy = may_draw_by_numpy
        self.is_sharded = self.is_rebatched = self.is_last = self.is_shuffled = False
        self.is_drawn = False  # an order is drawn when an epoch begins
        self.are_equal = True  # its items can be stacked
        self.has_lists = self.may_fail = self.skips = False
        self.is_loose = False  # what its batches are is known in the loop only
        self.may_be_short = False  # a batch may have too few samples, and be dropped
        self.is_filtered = False
        self.yields = False  # a generator function makes its items
        self.are_joinable = True  # batches of several sizes are so along their first axis only

    def allowed(self) -> list[str]:
        if self.is_last:
            return []
        if self.is_rebatched:
            return ["max_samples"]
        names = []
        if self.has_index and not self.is_sharded and not (self.is_loose and self.may_be_short):
            names += ["shuffle", "shuffle", "take", "skip"]
            names += ["shard"] * (not self.is_filtered) + ["repeat"] * (not self.is_drawn)
            if not self.is_shuffled:
                names += ["reorder", "weighted"] + ["batch_by"] * (self.are_equal and not self.is_loose)
        if not self.is_loose:
            names += (
                ["map", "map", "collate", "sub_batch"]
                + ["rebatch"] * self.are_joinable
                + ["filter"] * (not self.is_sharded)
            )
            if self.are_equal and not self.is_sharded and (self.has_index or not self.has_lists or self.yields):
                names += ["batch", "batch", "batch"]
        return [*names, "max_samples"]

    def batch(self, drop_last: bool) -> None:
        if self.yields:
            self.is_rebatched = True
            return
        self.is_loose = self.has_lists or (self.skips and self.may_fail)
        self.are_equal, self.may_be_short = drop_last and not self.is_loose, drop_last

    def prefetch(self, options: dict[str, Any]) -> None:
        self.is_shuffled |= options.get("shuffle", False)
        self.skips |= options.get("on_error") == "skip"
        if "batch_size" in options:
            self.batch(options.get("drop_last", False))

    def word(self, draw: Any, name: str, length: int) -> list[Word]:
        """What is said. ``length``: of the jobs before it."""
        if name == "filter":
            self.has_lists = self.is_filtered = True
            return [Word("filter", (is_kept,))]
        self.yields &= name not in ("repeat", "reorder", "batch_by", "weighted")
        if name == "repeat":
            return [Word("repeat", (draw(st.integers(1, 3)),))]
        if name in ("reorder", "batch_by", "weighted"):
            self.is_shuffled, self.is_drawn = True, name != "weighted"
            places = st.lists(st.integers(0, length - 1), min_size=1, max_size=6)
            if name == "weighted":
                weights = draw(st.lists(st.integers(0, 4), min_size=length, max_size=length))
                return [Word("weighted", ([*weights[:-1], weights[-1] or 1],))]
            if name == "batch_by":
                self.are_equal = self.has_lists = False
                return [Word("batch_by", (draw(st.lists(places, min_size=1, max_size=5)),))]
            return [Word("reorder", (draw(places),))]
        if name == "map":
            functions = [noisy, copies, failing, two, *YIELDING] + [noisy_by_numpy] * self.may_draw_by_numpy
            function = draw(st.sampled_from(functions))
            self.yields |= function in YIELDING
            self.has_lists |= function in (copies, *YIELDING)
            self.may_fail |= function in (failing, spread_and_fail)
            if function is two:
                self.are_joinable &= self.are_equal
                self.are_equal = False
                return [Word("map", (two,), {"as_items": False}), Word("collate")]
            return [Word("map", (function,))]
        if name == "collate":
            return [Word("collate", draw(st.sampled_from([(), (noisy,)])))]
        if name in ("batch", "sub_batch", "rebatch"):
            size, drop_last = draw(st.integers(1, 4)), draw(st.booleans())
            if name == "batch":
                self.batch(drop_last)
            elif name == "rebatch":
                self.is_rebatched = True
            else:
                self.has_lists, self.are_equal = True, False
            return [Word(name, (size, drop_last))]
        if name == "shard":
            self.is_sharded = True
            world = draw(st.integers(1, 3))
            return [Word(name, (draw(st.integers(0, world - 1)), world, draw(st.sampled_from(["drop", "pad"]))))]
        if name == "max_samples":
            self.is_last = True
            return [Word(name, (draw(st.integers(1, 9)),))]
        if name in ("take", "skip"):
            return [Word(name, (draw(st.integers(1, 9)) if name == "take" else draw(st.integers(0, 1)),))]
        self.is_shuffled = True
        return [Word(name)]


@st.composite
def pipelines(draw: Any, sources: tuple[str, ...], may_draw_by_numpy: bool = True) -> Spec:
    """A source, up to four words, and where among them ``prefetch`` stands, with its options."""
    source, words = draw(st.sampled_from(sources)), []
    length = draw(st.sampled_from([8, 9, 12, 10, 7, 11, 4, 1]))
    chain, place = Chain(source, may_draw_by_numpy), draw(st.integers(0, 4))
    is_seeded_at_the_end = source in WITH_SEED and draw(st.booleans())
    for number in range(draw(st.integers(0, 4)) + 1):
        if number == place or (number and number < place and not chain.allowed()):
            words.append(drawn_prefetch(draw, chain))
            place = -1
        elif names := chain.allowed():
            num_jobs = len(modelled(Spec(source, length, words)).jobs(0)[0])
            if num_jobs < 2:
                names = [name for name in names if name not in ("take", "skip")]  # nothing might be left
            if not num_jobs or num_jobs > 100:
                names = [name for name in names if name not in ("reorder", "weighted", "batch_by", "repeat")]
            words += chain.word(draw, draw(st.sampled_from(names)), num_jobs)
    if place >= 0 and not any(word.name == "prefetch" for word in words):
        words.append(drawn_prefetch(draw, chain))
    return Spec(source, length, words, draw(st.integers(0, 3)), is_seeded_at_the_end)


def drawn_prefetch(draw: Any, chain: Chain) -> Word:
    options: dict[str, Any] = {}
    if draw(st.booleans()):
        options["on_error"] = "skip"
    if draw(st.integers(0, 3)) == 0:
        options["output"] = "torch"
    if draw(st.booleans()):
        options["max_queue_size"] = draw(st.sampled_from([1, 2, 5, 30]))
    names = chain.allowed()
    if "shuffle" in names and draw(st.integers(0, 2)) == 0:
        options["shuffle"] = True
    if "batch" in names and draw(st.integers(0, 2)) == 0:
        options |= {"batch_size": draw(st.integers(1, 4)), "drop_last": draw(st.booleans())}
    if not (chain.is_loose or chain.is_rebatched or chain.is_last) and draw(st.integers(0, 4)) == 0:
        options["in_order"] = False
    chain.prefetch(options)
    return Word("prefetch", (), options)


def is_ordered(spec: Spec) -> bool:
    return all(word.options.get("in_order", True) for word in spec.words if word.name == "prefetch")


def puts_together(spec: Spec) -> bool:
    """Batches are put together where they are read: of jobs as they come, with in_order=False."""
    names = spec.names()
    return (
        "rebatch" in names
        or "max_samples" in names
        or any({copies, *YIELDING} & {*filter(callable, word.arguments)} for word in spec.words)
    )


# -- machines


class Machine(RuleBasedStateMachine):
    """A loop without workers."""

    ways: tuple[dict[str, Any], ...] = ({"nb_workers": 0},)
    sources: tuple[str, ...] = (*SOURCES, "hooks", "hooks")  # with hooks most can go wrong
    may_draw_by_numpy = True
    tally: Any = types.SimpleNamespace(delivered=0, faults=0)  # of all examples

    def __init__(self) -> None:
        super().__init__()
        self.loop: Any = None
        self.saved: list[tuple[str, Any]] = []  # (state, place)
        self.num_kills = 0

    @initialize(data=st.data())
    def build(self, data: Any) -> None:
        drawn = pipelines(self.sources, self.may_draw_by_numpy).filter(self.has_one_answer)
        self.spec = data.draw(drawn, label="pipeline")
        self.pipeline = modelled(self.spec)
        way = data.draw(st.sampled_from(self.ways), label="workers")
        try:
            self.open(way)
        except ValueError as error:
            assume("none is left for each of" not in str(error))  # there are fewer batches than ranks
            raise
        self.next(3)
        self.begin_otherwise(data)

    def begin_otherwise(self, data: Any) -> None:
        """What is done before the steps."""

    def has_one_answer(self, spec: Spec) -> bool:
        """Whether it does not depend on which job ends first what is in a batch."""
        return is_ordered(spec) or not puts_together(spec)

    def open(self, way: dict[str, Any]) -> None:
        self.close()
        batches = made(self.spec, max_retries=MANY, **way)
        self.loop = Loop(batches, self.pipeline, is_ordered(self.spec))
        self.way, self.num_kills, self.wanted = way, 0, None
        if way["nb_workers"] == "auto":
            scripted(self.front(), lambda look: self.wanted)

    def close(self) -> None:
        if self.loop is not None:
            self.tally.delivered += self.loop.num_compared
            self.loop.batches.close()
            self.loop = None

    def teardown(self) -> None:
        self.close()

    def front(self) -> Any:
        """The front-end that has the workers."""
        batches = self.loop.batches
        return batches if isinstance(batches, SequenceMap) else batches.source_split

    @rule(number=st.integers(1, 6))
    def next(self, number: int) -> None:
        for _ in range(number):
            if not self.loop.next():
                return

    @rule()
    def finish(self) -> None:
        for _ in range(MOST):  # where all jobs fail, passes of max_samples have no end
            if not self.loop.next():
                return

    @rule(number=st.integers(1, 3))
    def leave_and_begin(self, number: int) -> None:
        self.loop.begin()
        self.next(number)

    @rule()
    def save(self) -> None:
        self.state()

    def state(self) -> bool:
        """Take a state, where there can be one."""
        try:
            state = json.dumps(self.loop.batches.state_dict())
        except StateError:
            assert "shard" in self.spec.names(), "only ranks have places at which no state can be taken"
            return False
        self.saved = [*self.saved[-3:], (state, self.loop.reader.place())]
        return True

    @rule(data=st.data(), number=st.integers(1, 5))
    def stop_and_resume(self, data: Any, number: int) -> None:
        """As a program that is started again does it."""
        if self.state():
            self.open(data.draw(st.sampled_from(self.ways), label="workers"))
            self.go_to(*self.saved[-1])
            self.next(number)

    @precondition(lambda self: self.saved)
    @rule(data=st.data(), number=st.integers(1, 5))
    def go_back(self, data: Any, number: int) -> None:
        """To any state: in this object, or in a new one."""
        state = data.draw(st.sampled_from(self.saved), label="state")
        if self.spec.source in WITH_HOOKS or data.draw(st.booleans(), label="into a new object"):
            self.open(data.draw(st.sampled_from(self.ways), label="workers"))
        self.go_to(*state)
        self.next(number)

    def go_to(self, state: str, place: Any) -> None:
        try:
            self.loop.batches.load_state_dict(json.loads(state))
        except StateError:
            assert "shard" in self.spec.names()
            assert not is_ordered(self.spec)
            return
        self.loop.reader.go_to(place)
        self.loop.iterator = None


class Threads(Machine):
    """Threads, and none."""

    ways = ({"nb_workers": 0}, {"nb_workers": 1, "executor": "thread"}, {"nb_workers": 2, "executor": "thread"})
    sources = tuple(name for name in Machine.sources if name != "PyDataset")
    may_draw_by_numpy = False


class Auto(Machine):
    """``nb_workers="auto"`` that goes over to workers and back when it is told to; these are threads, most often."""

    ways = (
        {"nb_workers": "auto", "executor": "thread"},
        {"nb_workers": "auto", "executor": "thread"},
        {"nb_workers": "auto"},
        {"nb_workers": 0},
    )
    sources = tuple(name for name in Threads.sources if name != "iterable")
    may_draw_by_numpy = False

    def has_one_answer(self, spec: Spec) -> bool:
        return is_ordered(spec)

    def begin_otherwise(self, data: Any) -> None:
        if self.way["nb_workers"] == "auto":
            self.go_over(data.draw(st.integers(1, 2), label="workers that take over"), 2)

    @precondition(lambda self: self.way["nb_workers"] == "auto")
    @rule(nb_workers=st.sampled_from([1, 2, 0]), number=st.integers(2, 5))
    def go_over(self, nb_workers: int, number: int) -> None:
        """Between two batches of a pass."""
        self.next(1)
        self.wanted = nb_workers
        if nb_workers:
            have(self.front(), nb_workers)
        self.next(number)


class Processes(Auto):
    """Worker processes, some of which are killed."""

    ways = (
        {"nb_workers": 2},
        {"nb_workers": 1},
        {"nb_workers": "auto"},
        {"nb_workers": 0},
    )
    may_draw_by_numpy = True

    @precondition(lambda self: self.num_kills < 2)
    @rule(which=st.integers(0, 3))
    def kill(self, which: int) -> None:
        """At most two: what dies again and again before it can take a job is given up."""
        self.num_kills += 1  # whether or not there is one now: what is drawn next must not depend on that
        pids = [worker.pid for worker in self.front().report().workers if worker.pid]
        if pids:
            with contextlib.suppress(ProcessLookupError):  # it was killed just now, and nobody has noticed
                os.kill(pids[which % len(pids)], signal.SIGKILL)
            self.tally.faults += 1


#: {machine: its share of the examples}
SHARES: dict[type[Machine], float] = {Machine: 0.25, Threads: 0.2, Auto: 0.25, Processes: 0.3}


def hold(machine: type[Machine], num_examples: int, seed: int | None = None) -> None:
    """Run ``num_examples`` of a machine. Raises what its steps raise, after the shortest ones that do.

    Args:
        seed: of what is drawn; None: the same in every run.
    """
    import keras_dataset  # noqa: F401 - Keras draws from ``random`` when it is imported, which strategies must not do

    given = settings(
        max_examples=max(1, num_examples),
        stateful_step_count=12,
        derandomize=seed is None,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=seed is None,
    )
    drawn = machine if seed is None else hypothesis.seed(seed)(machine)
    with kept_server():
        run_state_machine_as_test(drawn, settings=given)  # type: ignore[no-untyped-call]
