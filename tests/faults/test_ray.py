"""``executor="ray"``: the same loop on a cluster of three nodes, whatever happens to them."""

from __future__ import annotations

import importlib.util
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


def played(name: str) -> Any:
    """What a program has found. It, and all of its cluster, is gone behind it."""
    environment = {**os.environ, "PYTHONPATH": f"{PROGRAMS.parent}:{os.environ.get('PYTHONPATH', '')}"}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}
    done = subprocess.run(
        [sys.executable, str(PROGRAMS), name], env=environment, capture_output=True, text=True, timeout=110, check=False
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
        "executor": "ray",
        "workers": 3,
        "read-only": True,
        "writable": True,
        "any order": True,
        "resumed": True,
        "actors": 0,
    }


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
        ({"addres": "x"}, ValueError, "executor_options has 'addres'; it may have 'address', 'resources'"),
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
