"""``executor="ray"``: the same loop on a cluster of three nodes, whatever happens to them."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workers import Sequence, prefetch

PROGRAMS = Path(__file__).resolve().parents[1] / "support" / "ray_programs.py"
has_ray = pytest.mark.needs("ray")


def played(*names: str, program: Path = PROGRAMS) -> Any:
    """What a program has found. It, and all of its cluster, is gone behind it."""
    environment = {**os.environ, "PYTHONPATH": f"{PROGRAMS.parent}:{os.environ.get('PYTHONPATH', '')}"}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}
    done = subprocess.run(
        [sys.executable, str(program), *names],
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@has_ray
def test_the_same_batches() -> None:
    found = played("same")
    assert found.pop("unpicklable").startswith("TypeError: cannot pickle '_thread.lock' object")
    assert found == {
        "Drawn": True,
        "Hooked": True,
        "one after the other": True,
        "executor": "ray",
        "workers": 3,
        "read-only": True,
        "writable": True,
        "any order": True,
        "resumed": True,
        "actors": 0,
    }


@has_ray
def test_the_words_of_a_chain() -> None:
    """Each gives the same batches, states and failures as without actors."""
    found = played(program=PROGRAMS.with_name("ray_words.py"))
    assert len(found) == 21
    assert set(found.values()) == {True}, found


@has_ray
def test_actors_that_die() -> None:
    found = played("faults")
    assert found["same"]
    assert found["restarts"] in (2, 3)  # which job of a bundle it was is found out by running them one by one
    assert found["skipped"]
    assert "WorkerDiedError" in found["error"]
    assert "batch 5 of epoch 0" in found["error"]


@has_ray
def test_a_node_that_goes_and_one_that_comes() -> None:
    assert played("node") == {"same": True, "after": 2, "joined": True, "still": True}


@has_ray
def test_a_node_that_is_stopped() -> None:
    """It costs no batch, and its bound (4 s here); a job that lets no other thread run does not count as one."""
    found = played("stopped")
    assert found["Hooked"]
    assert found["GoesOn"]
    assert found["Hooked restarts"] == found["GoesOn restarts"] == 0
    for when in ("within an epoch", "between epochs"):
        assert found[when]
        assert found[f"{when}, longest wait"] < 30  # Ray itself takes a minute


@has_ray
def test_auto_follows_the_cluster() -> None:
    found = played("auto")
    assert found["same"]
    assert found["workers"] >= 2, found["choices"]


@has_ray
def test_a_head_that_is_gone() -> None:
    found = played("head")
    assert "has not answered for" in found["error"]
    assert found["seconds"] < 60


@has_ray
def test_ranks_share_a_cluster() -> None:
    first, second = played("ranks")["seen"]
    for one, other in zip(first, second, strict=True):
        assert len(one) == len(other) == 10
        assert not set(one) & set(other)
    assert first[0] != first[1]


@has_ray
@pytest.mark.needs("torch")
def test_two_ranks_train_one_model() -> None:
    first, second = played("train")
    assert [len(epoch) for epoch in first["epochs"]] == [len(epoch) for epoch in second["epochs"]] == [10] * 6
    for one, other in zip(first["epochs"], second["epochs"], strict=True):
        assert not set(one) & set(other)
    assert first["weights"] == second["weights"] == pytest.approx([3, -1], abs=0.3)
    assert first["losses"][-1] < first["losses"][0] / 10


@has_ray
def test_arrays_lie_once_on_a_node() -> None:
    """All actors of a node have them from one place of its object store."""
    assert played("store") == {"actors": 4, "places": 2}


@has_ray
def test_a_slow_node_holds_nothing_back_but_its_batch() -> None:
    """In order, the others go on until the queue is full; as they come, they do not wait for it at all."""
    found = played("uneven")
    assert [index for index, _ in found["in order"]] == list(range(150))
    slow = [index for index, is_slow in found["in order"] if is_slow]
    assert 2 <= len(slow) <= 150 / 15, slow
    assert all(later - before >= 15 for before, later in itertools.pairwise(slow)), slow
    assert sorted(index for index, _ in found["as they come"]) == list(range(150))
    assert [is_slow for _, is_slow in found["as they come"]].index(True) >= 60


@has_ray
def test_log_records_of_actors() -> None:
    assert played("logs") == [[f"batch {index}", "worker-0"] for index in range(10)]


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "prefetch-sequence\[ray\]"'):
        prefetch([1, 2], 1, executor="ray")


def test_nobody_imports_ray() -> None:
    code = "import sys, workers, sampler; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


class Any1(Sequence[int]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        return index


@has_ray
@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        (
            {"addres": "x"},
            ValueError,
            "executor_options has an unknown key 'addres'; its keys may be 'address', 'resources'",
        ),
        ({"address": 3}, TypeError, r"executor_options\['address'\] must be a string, not 3"),
        ({"resources": 3}, TypeError, r"executor_options\['resources'\] must be a dict"),
        ({"resources": {"CPU": -1}}, TypeError, "must be a dict such as"),
        ({"placement": "here"}, ValueError, "must be 'spread', 'pack', a placement group"),
        ({"writable": 1}, TypeError, "must be True or False, not 1"),
        ([], TypeError, "executor_options must be a dict"),
    ],
)
def test_options_that_are_wrong(options: Any, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        Any1().prefetch(nb_workers=1, executor="ray", executor_options=options)


def test_options_of_another_executor() -> None:
    with pytest.raises(ValueError, match="executor_options go with executor=\"ray\", not 'process'"):
        Any1().prefetch(nb_workers=1, executor_options={})
