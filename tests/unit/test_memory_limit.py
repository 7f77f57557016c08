"""How much memory is left, as the kernel's files tell it."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.batch import memory_limit

STAT = "anon 5\ninactive_file 100\ntotal_inactive_file 200\n"


def folder(path: Path, **files: str) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (path / name.replace("__", ".")).write_text(text)


def left(tmp_path: Path, groups: str) -> int | None:
    folder(tmp_path / "proc", meminfo="MemTotal: 9 kB\nMemAvailable:    8 kB\n")
    folder(tmp_path / "proc" / "self", cgroup=groups)
    return memory_limit.available_nbytes(str(tmp_path / "proc"), str(tmp_path / "cgroup"))


def test_no_limit(tmp_path: Path) -> None:
    assert left(tmp_path, "0::/\n") == 8192
    folder(tmp_path / "cgroup" / "a", memory__max="max\n", memory__current="7\n", memory__stat=STAT)
    assert left(tmp_path, "0::/a\n") == 8192


def test_version_2(tmp_path: Path) -> None:
    """The least of all groups above it."""
    folder(tmp_path / "cgroup" / "a", memory__max="4000\n", memory__current="3000\n", memory__stat=STAT)
    folder(tmp_path / "cgroup" / "a" / "b", memory__max="9000\n", memory__current="3000\n", memory__stat=STAT)
    assert left(tmp_path, "1:cpu:/x\n0::/a/b\n") == 1100


def test_version_1(tmp_path: Path) -> None:
    options = {"memory__limit_in_bytes": "4000\n", "memory__usage_in_bytes": "3000\n", "memory__stat": STAT}
    folder(tmp_path / "cgroup" / "memory" / "a", **options)
    assert left(tmp_path, "4:memory:/a\n0::/\n") == 1200


def test_nothing_is_known(tmp_path: Path) -> None:
    assert memory_limit.available_nbytes(str(tmp_path), str(tmp_path)) is None


def test_here() -> None:
    available = memory_limit.available_nbytes()
    assert available is not None
    memory_limit.check_available(1)
    with pytest.raises(MemoryError, match=r"bytes of shared memory do not fit: [\d,]+ bytes are left"):
        memory_limit.check_available(1 << 60)
