"""The cost model of a cluster."""

from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "plan_cluster.py"


@pytest.fixture(scope="module")
def plan() -> Any:
    spec = importlib.util.spec_from_file_location("plan_cluster", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["plan_cluster"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def loop(plan: Any) -> Any:
    return plan.Loop(
        job=1.0,
        nbytes=1e6,
        step=0.01,
        link=1e9,
        cores=10,
        worker_s=0.0,
        consumer_s=0.001,
        store_rate=1e12,
        copy_rate=0.0,
    )


def test_as_many_machines_as_the_loop_asks_for(plan: Any, loop: Any) -> None:
    assert loop.machines == 11  # 10 of them would deliver 99.9999 a second, as the store has to move the bytes
    assert loop.rate(11) == pytest.approx(100)
    assert loop.rate(5) == pytest.approx(50, rel=1e-3)
    assert "11 machines of 10 cores: 100.0 batches a second" in plan.told(loop)
    assert "the loop asks for 100.0 a second" in plan.told(loop)


@pytest.mark.parametrize(
    ("changed", "name", "most"),
    [
        ({"link": 2e7}, "link", 20.0),
        ({"consumer_s": 0.1}, "object store", 10.0),
        ({"copy_rate": 1e7, "consumer_s": 0.0}, "the consumer's copy", 10.0),
        ({"step": 0.5}, "the loop's own step", 2.0),
    ],
)
def test_what_holds_it_back(plan: Any, loop: Any, changed: dict[str, float], name: str, most: float) -> None:
    held = dataclasses.replace(loop, **changed)
    assert held.most == (name, pytest.approx(most, rel=1e-3))
    assert held.rate(1000) == pytest.approx(most, rel=1e-3)
    assert name == "the loop's own step" or name in plan.told(held)


@pytest.mark.needs("matplotlib")
def test_the_picture(tmp_path: Path) -> None:
    picture = tmp_path / "plan.png"
    subprocess.run([sys.executable, str(SCRIPT), "--writable", "--png", str(picture)], check=True)
    assert picture.stat().st_size > 10_000


@pytest.mark.parametrize("wrong", [["--job", "0"], ["--cores", "-1"], ["--link", "0"]])
def test_wrong_arguments(plan: Any, wrong: list[str], monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["plan", *wrong])
    with pytest.raises(SystemExit):
        plan.main()
    assert f"{wrong[0]} must be greater than 0, not {float(wrong[1]):g}" in capsys.readouterr().err
