"""What the files of control groups say, of both versions, in a folder laid out here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workers import limits, prefetch
from workers.limits import Limit

Files = dict[str, str]  # {path: text}

PERIOD = {"cpu/a/cpu.cfs_period_us": "100000\n"}


def lay_out(folder: Path, groups: str, files: Files) -> tuple[str, str]:
    """(/proc, /sys/fs/cgroup) of a process in ``groups``."""
    everything = {"proc/self/cgroup": groups, "proc/meminfo": "MemTotal:  9000 kB\n"}
    everything |= {f"cgroup/{path}": text for path, text in files.items()}
    for path, text in everything.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return str(folder / "proc"), str(folder / "cgroup")


@pytest.fixture
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.mark.usefixtures("_eight_cores")
@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/a/b\n", {}, 8),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n"}, 8),
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000\n"}, 2),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "20000 100000\n"}, 1),
        ("0::/a\n", {"c/cpu.max": "20000 100000\n"}, 8),
        ("4:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1\n", **PERIOD}, 8),
        ("4:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "250000\n", **PERIOD}, 3),
        ("4:cpu:/a/b\n0::/\n", {"cpu/a/cpu.cfs_quota_us": "400000\n", **PERIOD}, 4),
        ("4:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "400000\n", **PERIOD}, 4),
        ("4:cpuset:/a\n", {"cpuset/a/cpu.cfs_quota_us": "400000\n", **PERIOD}, 8),
        # As a container sees it that is told the path on its host.
        ("4:cpu:/docker/1\n", {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
    ],
)
def test_cores(tmp_path: Path, groups: str, files: Files, cores: int) -> None:
    assert limits.cores(*lay_out(tmp_path, groups, files)) == cores


def test_workers_by_default() -> None:
    """As they pay; where what is read here is sent to workers, one for each core but that of the loop."""
    with prefetch([1]) as batches:
        assert batches.nb_workers == "auto"
        assert batches.report().nb_workers == 0
    for collate_fn, number in ((None, 0), (str, max(1, limits.cores() - 1))):
        with prefetch(iter([1]), collate_fn=collate_fn) as batches:
            assert len(list(batches)) == 1
            assert batches.report().nb_workers == number


@pytest.mark.parametrize(
    ("groups", "files", "most", "source"),
    [
        ("0::/a\n", {"a/memory.max": "max\n"}, 9000 * 1024, "this machine"),
        ("4:memory:/a\n", {"memory/a/memory.limit_in_bytes": f"{2**63 - 4096}\n"}, 9000 * 1024, "this machine"),
        ("0::/a/b\n", {"a/b/memory.max": "4000\n", "a/memory.max": "3000\n"}, 3000, "cgroup/a"),
        ("4:memory:/a/b\n", {"memory/a/memory.limit_in_bytes": "3000\n"}, 3000, "cgroup/memory/a"),
    ],
)
def test_memory(tmp_path: Path, groups: str, files: Files, most: int, source: str) -> None:
    found = limits.memory(*lay_out(tmp_path, groups, files))
    assert found is not None
    assert found.most == most
    assert found.source.endswith(source)


def test_processes(tmp_path: Path) -> None:
    files = {"a/pids.max": "40\n", "a/b/pids.max": "max\n"}
    proc, root = lay_out(tmp_path, "0::/a/b\n", files)
    assert Limit(40, f"pids.max of the control group {root}/a") in limits.processes(proc, root)
    (Path(root) / "a/pids.max").write_text("max\n")
    assert not any("pids.max" in limit.source for limit in limits.processes(proc, root))
