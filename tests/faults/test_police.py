"""The police catches what it is there for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]

CULPRITS = """
import os, subprocess, sys, threading, time

def test_nothing():
    subprocess.run(["true"])

def test_process():
    test_process.left = subprocess.Popen(["sleep", "5"])

def test_orphan():
    sleeper = "import subprocess; subprocess.Popen(['sleep', '5'], start_new_session=True)"
    subprocess.run([sys.executable, "-c", sleeper])

def test_zombie():
    os.posix_spawnp("true", ["true"], os.environ)  # nobody waits for it

def test_thread():
    threading.Thread(target=time.sleep, args=(5,), daemon=True, name="idle").start()

def test_descriptor():
    os.memfd_create("kept")

def test_shared_name():
    open("/dev/shm/police-{pid}", "w").close()
"""

HANGS = """
import threading

def test_hangs():
    threading.Event().wait()
"""


def run(folder: Path, program: str, before: str, after: str) -> str:
    police = (TESTS / "conftest.py").read_text()
    assert before in police
    (folder / "conftest.py").write_text(police.replace(before, after))
    (folder / "test_culprits.py").write_text(program)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "test_culprits.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


def test_leftovers(tmp_path: Path) -> None:
    """Each kind fails the test that leaves it, by name, and no other."""
    name = f"/dev/shm/police-{os.getpid()}"
    try:
        out = run(tmp_path, CULPRITS.replace("{pid}", str(os.getpid())), "PATIENCE_S = 30.0", "PATIENCE_S = 0.1")
    finally:
        Path(name).unlink()
    assert "7 passed, 6 errors" in out, out
    for part in ("'process ", "'thread idle", "'descriptor ", "memfd:kept", name):
        assert part in out
    for test in ("process", "orphan", "zombie", "thread", "descriptor", "shared_name"):
        assert f"at teardown of test_{test} " in out


def test_a_hang(tmp_path: Path) -> None:
    """Ends the run; the stacks are told, past pytest's capturing."""
    out = run(tmp_path, HANGS, "DEADLINE_S = 120.0", "DEADLINE_S = 0.5")
    assert "in test_hangs" in out, out
    assert "passed" not in out
