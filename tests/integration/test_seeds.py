"""Which seed a chain draws from: the one given at its end, else one given to a part, else one of the program's."""

from __future__ import annotations

import functools
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shards import parse, write

from sampler import MultiShotMemorySampler, SingleShotMemorySampler, TFRecordSequence
from workers import Sequence, SequenceArray, SequenceMap, StateError, current_rng, prefetch

ROOT = Path(__file__).resolve().parents[2]


class Draws(Sequence[Any]):
    """Draws, also in its hooks, and tells its seed."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.noted = 0.0

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        return np.array([current_rng().random(), self.noted, float(self.seed % 2**40)])

    def on_epoch_end(self) -> None:
        self.noted = float(np.random.random()) + self.seed % 7


class Squares:
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Any:
        return {"x": np.array([index, current_rng().random()])}


def single(**options: Any) -> Any:
    return SingleShotMemorySampler(np.arange(40.0), None, class_per_batch=4, steps_per_epoch=6, **options)


def multi(**options: Any) -> Any:
    labels = np.arange(40) % 5
    return MultiShotMemorySampler(np.arange(40.0), labels, 2, 3, steps_per_epoch=6, **options)


def some_of_multi(**options: Any) -> Any:
    labels = np.arange(40) % 5
    return MultiShotMemorySampler(
        np.arange(40.0), labels, 2, 2, steps_per_epoch=6, total_examples_per_class=3, **options
    )


def array(**options: Any) -> Any:
    return SequenceArray({"x": np.arange(12)}, np.random.permutation, **options)


def subsample(**options: Any) -> Any:
    return SequenceArray({"x": np.arange(30)}, **options).subsample(8)


def subsample_of_drawn(**options: Any) -> Any:
    return SequenceArray({"x": np.arange(30)}, np.random.permutation, **options).subsample(8)


def shuffled(**options: Any) -> Any:
    return SequenceArray({"x": np.arange(12)}, **options).shuffle()


SOURCES = [Draws, single, multi, some_of_multi, array, subsample, subsample_of_drawn, shuffled]
ENDS: dict[str, Any] = {
    "prefetch": lambda source, seed: prefetch(source, 0, seed=seed),
    "workers": lambda source, seed: prefetch(source, 1, seed=seed),
    "auto": lambda source, seed: prefetch(source, seed=seed),
    "map": lambda source, seed: source.map(lambda item: item, seed=seed),
    "SequenceMap": lambda source, seed: SequenceMap(source, 0, seed=seed),
    "shuffle": lambda source, seed: prefetch(source, 0, shuffle=True, seed=seed),
    "map, then prefetch": lambda source, seed: source.map(lambda item: item).prefetch(0, seed=seed),
    "map, then shuffle": lambda source, seed: source.map(lambda item: item, seed=seed).shuffle(),
}


def text(batch: Any) -> str:
    return repr([part.tolist() for part in (batch.values() if isinstance(batch, dict) else batch)])


def epochs(batches: Any, number: int = 2) -> list[str]:
    with batches:
        return [text(batch) for _ in range(number) for batch in batches]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.__name__)
def test_the_seed_of_the_end_is_that_of_all(source: Any, end: str) -> None:
    """Whatever the source has drawn for itself, and whether or not it was asked for batches before."""
    used = source()
    used[0]
    got = epochs(ENDS[end](source(), 5))
    assert got == epochs(ENDS[end](used, 5))
    assert got != epochs(ENDS[end](source(), 6))
    if end in ("prefetch", "workers", "auto", "SequenceMap"):
        assert got == epochs(prefetch(source(seed=5), 0))


@pytest.mark.parametrize("source", [*SOURCES[:5], shuffled], ids=lambda source: source.__name__)
def test_a_part_that_was_given_a_seed_has_its_own(source: Any) -> None:
    """A sampler then draws as it does; what runs in the jobs draws from the seed of the end."""
    own = source(seed=9)
    with prefetch(own, 0, seed=5) as batches, prefetch(source(), 0, seed=5) as others:
        assert batches.seed == 5
        assert [text(batch) for batch in batches] != [text(batch) for batch in others]
        with pytest.raises(StateError):
            batches.load_state_dict(others.state_dict())
        with pytest.raises(StateError):
            others.load_state_dict(batches.state_dict())


def test_functions_of_one_chain_have_one_seed() -> None:
    """They run in one job. What is given twice, and is the same, says nothing new."""
    mapped = Draws().map(lambda item: item, seed=5)
    for make in (mapped.prefetch, mapped.shuffle().prefetch, lambda **seed: mapped.map(lambda item: item, **seed)):
        with pytest.raises(ValueError, match="seed is 6, but a map before it was given seed 5"):
            make(seed=6)
        assert make(seed=5).seed == 5 == make().seed


@pytest.mark.parametrize("source", [single, multi, some_of_multi, array], ids=lambda source: source.__name__)
def test_a_seed_that_is_set_later(source: Any) -> None:
    made = source()
    made[0]
    made.seed = 5
    assert epochs(made.prefetch(0)) == epochs(source(seed=5).prefetch(0))
    assert text(made[3]) == text(source(seed=5)[3]) or made.epoch


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.__name__)
@pytest.mark.parametrize("nb_workers", [0, 2])
def test_two_loops_of_two_seeds_over_one_source(source: Any, nb_workers: int) -> None:
    """Neither changes what the other one draws."""
    wanted = {seed: epochs(prefetch(source(), 0, seed=seed), 1) for seed in (5, 6)}
    shared = source()
    with prefetch(shared, nb_workers, seed=5) as five, prefetch(shared, nb_workers, seed=6) as six:
        both = [(text(one), text(other)) for one, other in zip(five, six, strict=True)]
    assert ([one for one, _ in both], [other for _, other in both]) == (wanted[5], wanted[6])


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.__name__)
@pytest.mark.parametrize("seed", [None, 5])
def test_a_state_goes_on_in_another_program(source: Any, seed: int | None) -> None:
    """If the seed is given at the end; else it is refused, for what was drawn is another one."""
    with prefetch(source(), 0, seed=seed) as batches:
        loop = iter(batches)
        got = [text(next(loop)) for _ in range(3)]
        state = batches.state_dict()
        rest = [text(batch) for batch in loop]
    with prefetch(source(), 1, seed=seed) as batches:
        if seed is None:
            with pytest.raises(StateError, match="seed"):
                batches.load_state_dict(state)
            return
        batches.load_state_dict(state)
        assert [text(batch) for batch in batches] == rest
    assert got + rest == epochs(prefetch(source(), 0, seed=seed), 1)


def test_a_tfrecord_sequence(tmp_path: Path) -> None:
    write(tmp_path / "shards", [4, 4, 4], 2)

    def made(**options: Any) -> Any:
        return TFRecordSequence(tmp_path / "shards", parse, example_per_class=2, batch_size=4, **options)

    def told(batches: Any) -> list[Any]:
        with batches:
            return [batch[0].tolist() for _ in range(2) for batch in batches]

    wanted = told(made(seed=5).prefetch(0))
    assert told(made().prefetch(0, seed=5)) == wanted
    assert told(made().map(lambda batch: batch, 1, seed=5)) == wanted
    assert told(made().prefetch(0, seed=6)) != wanted
    later = made()
    later[0]
    later.seed = 5
    assert told(later.prefetch(0)) == wanted


# -- no seed is given: the program's

PROGRAM = """
import sys
sys.path.insert(0, {root!r})
{before}
import numpy as np
from workers import SequenceArray, prefetch
{after}
for _ in range(2):
    with prefetch(SequenceArray({{"x": np.arange(50)}}), 0, shuffle=True) as batches:
        print(batches.seed, [int(batch["x"]) for batch in batches])
{last}
"""


def output(before: str = "", after: str = "", last: str = "") -> str:
    program = PROGRAM.format(root=str(ROOT), before=before, after=after, last=last)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "seed",
    [
        "import numpy; numpy.random.seed({})",
        "import random; random.seed({})",
        "import torch; torch.manual_seed({})",
        "import tensorflow; tensorflow.random.set_seed({})",
        "import keras; keras.utils.set_random_seed({})",
    ],
)
def test_to_seed_the_program_is_to_seed_all(seed: str) -> None:
    framework = seed.partition(";")[0]
    pytest.importorskip(framework.removeprefix("import "))
    # One program has imported the framework, and its forks are programs that have drawn nothing.
    each = {"first": (seed.format(0), ""), "again": (seed.format(0), ""), "after": ("", seed.format(0))}
    each["other"] = seed.format(1), ""
    body = PROGRAM.format(root=str(ROOT), before="exec(before)", after="exec(after)", last="sys.stdout.flush()")
    program = f"""
import os
{framework}
for name, (before, after) in {each!r}.items():
    print(name, flush=True)
    if (child := os.fork()) == 0:
{indented(body)}
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    first, again, after, other = (lines[at + 1 : at + 3] for at in range(0, len(lines), 3))
    assert lines[::3] == list(each)
    assert first == again == after != other
    assert first[0] != first[1]  # two sequences draw from two seeds


def indented(program: str) -> str:
    return "\n".join(f"        {line}" for line in program.splitlines())


def test_a_program_that_seeds_nothing() -> None:
    assert output() != output()


def test_the_programs_generators_do_not_advance() -> None:
    tell = "import random; print(np.random.random(), random.random())"
    seed = "import random, numpy; random.seed(3); numpy.random.seed(3)"
    with_us = output(before=seed, last=tell).splitlines()[-1]
    without = subprocess.run(
        [sys.executable, "-c", f"{seed}\nimport numpy as np\n{tell}"], capture_output=True, text=True, check=True
    )
    assert with_us == without.stdout.strip()


class Nested(Sequence[Any]):
    """Makes a sequence in each job."""

    def __init__(self) -> None:
        super().__init__(seed=3)

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        one, other = Draws(), Draws()
        assert one.seed != other.seed
        return one.seed, other.seed


def test_a_sequence_that_a_job_makes() -> None:
    """Its seed is one of the job's: the same on any number of workers."""
    with Nested().prefetch(0) as batches, Nested().prefetch(2) as others:
        got = [*batches, *batches]
        assert got == [*others, *others]
    assert len(set(got)) == len(got)


class HoldsGlobals(Sequence[Any]):
    """Functions of the process's own generators, as attributes."""

    def __init__(self) -> None:
        super().__init__(seed=3)
        self.draws = [
            np.random.normal,
            random.random,
            functools.partial(random.uniform, 1, 2),
            np.random.mtrand._rand.rand,
        ]

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        return [draw() for draw in self.draws]


class HoldsGlobalOfTorch(HoldsGlobals):
    def __init__(self) -> None:
        super().__init__()
        torch = pytest.importorskip("torch")
        self.draws = [functools.partial(torch.randn, 2, generator=torch.default_generator)]


@pytest.mark.parametrize("kind", [HoldsGlobals, HoldsGlobalOfTorch])
def test_functions_of_the_global_generators(kind: Any) -> None:
    """In a worker they are those of the worker's generators, not of a copy of the loop's."""
    with kind().prefetch(0) as batches, kind().prefetch(2) as others:
        assert [repr(batch) for batch in batches] == [repr(batch) for batch in others]


class Held(Sequence[Any]):
    """A sequence that another one holds; it was given no seed."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        return int(np.random.default_rng((self.seed, index)).integers(1000))


class Holder(Sequence[Any]):
    def __init__(self, held: Any) -> None:
        super().__init__(seed=1)
        self.held = held

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        return self.held[index]


def test_a_sequence_that_is_held_by_another_one() -> None:
    """Its seed, where it was given none, follows from that of the chain: it is no job's, and no process's."""
    with Holder(Held()).prefetch(0) as batches:
        wanted = [list(batches), list(batches)]
    for nb_workers in (1, 2):
        with Holder(Held()).prefetch(nb_workers) as batches:
            assert [list(batches), list(batches)] == wanted
    with Holder(Held()).prefetch(0) as batches:
        loop = iter(batches)
        got = [next(loop), next(loop)]
        state = batches.state_dict()
    with Holder(Held()).prefetch(0) as batches:
        batches.load_state_dict(state)
        assert got + list(batches) == wanted[0]


def test_uids_of_a_subsample() -> None:
    def made(**options: Any) -> Any:
        samples = SequenceArray({"uid": np.arange(1000)}, **options)
        return samples.subsample(500).subsample_uids(range(9, -1, -1), "uid")

    def uids(batches: Any) -> list[int]:
        with batches:
            return [int(sample["uid"]) for sample in batches]

    wanted = uids(made().prefetch(0, seed=5))
    assert wanted == uids(made().prefetch(0, seed=5)) == uids(made().prefetch(1, seed=5)) == uids(made(seed=5))
    assert wanted == sorted(wanted, reverse=True)


def test_masked_uids_of_a_subsample_match_nothing() -> None:
    part = SequenceArray({"uid": np.arange(20)}).subsample(20)
    uids = np.ma.masked_array([3, 4, 5], [False, True, False])
    assert [int(sample["uid"]) for sample in part.subsample_uids(uids, "uid")] == [3, 5]


class SeedSeen(SequenceArray):
    """Its samples show the seed that its jobs have."""

    def __getitem__(self, index: int) -> Any:
        return {**super().__getitem__(index), "seed": self.seed}


@pytest.mark.parametrize("nb_workers", [0, 2])
@pytest.mark.parametrize("how", ["whole", "subsample", "subsample of it", "subsample_uids"])
def test_samples_that_ask_for_the_seed_of_the_end(how: str, nb_workers: int) -> None:
    """Only the end of the chain was given a seed; a sequence at its beginning that asks for its own gets that."""
    sequence: Any = SeedSeen({"x": np.arange(8), "uid": np.arange(8)})
    if how.startswith("subsample of") or how == "subsample":
        sequence = sequence.subsample(6)
    if how == "subsample of it":
        sequence = sequence.subsample(4)
    if how == "subsample_uids":
        sequence = sequence.subsample_uids([1, 2, 5], "uid")
    with sequence.batch(2).prefetch(nb_workers, seed=77) as batches:
        assert {int(seed) for batch in batches for seed in batch["seed"]} == {77}
    assert [sequence[0]["seed"]] != [77]
