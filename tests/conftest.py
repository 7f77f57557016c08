"""The police: no test may hang, or leave a process, thread, descriptor or /dev/shm name behind."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib.util
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from workers.process import server_handle

TESTS = Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS / "support")]  # what tests share, also for the workers

DEADLINE_S = 120.0  # detects a deadlock, nothing else
PATIENCE_S = 30.0  # for what ends by itself
# Every process below this one inherits it, so that an orphan is found too.
os.environ["POLICED_BY"] = str(os.getpid())
MARK = f"POLICED_BY={os.getpid()}".encode()

_terminal: int | None = None  # standard error, past pytest's capturing


def pytest_configure(config: pytest.Config) -> None:
    global _terminal
    config.addinivalue_line("markers", "needs(*modules): is skipped where one of them is not installed")
    config.addinivalue_line("markers", "own_server: its pools start a server of their own, and none stays behind it")
    _terminal = os.dup(2)  # here pytest does not capture
    # A shell has what it runs in the background ignore Ctrl-C, and so what that starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--thorough", action="store_true", help="run the tests that thorough.txt names, and no others")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that thorough.txt names, or all others; a test that is asked for by its name is run."""
    file = TESTS / "thorough.txt"
    lines = file.read_text().splitlines() if file.exists() else []
    names = {line for line in lines if line and not line.startswith("#")}
    wanted = config.getoption("--thorough")
    if not wanted and any("::" in argument for argument in config.args):
        return
    chosen, left, matched = [], [], set()
    for item in items:
        by = names.intersection(_names_of(item))
        matched |= by
        (chosen if wanted == bool(by) else left).append(item)
    is_whole = [Path(argument).resolve() for argument in config.args] == [TESTS]
    if is_whole and (unknown := names - matched):
        raise pytest.UsageError(f"thorough.txt names no test by {sorted(unknown)}")
    config.hook.pytest_deselected(items=left)
    # Those with servers of their own, which end the one that is kept, come first.
    items[:] = sorted(chosen, key=lambda item: getattr(item.module, "pytestmark", None) != pytest.mark.own_server)


def _names_of(item: pytest.Item) -> set[str]:
    """The names by which a case of a test is meant: its own, that of the test, and that of the file."""
    file, case = str(item.path.relative_to(TESTS)), item.nodeid.partition("::")[2]
    return {file, f"{file}::{case.partition('[')[0]}", f"{file}::{case}"}


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        for name in mark.args:
            if importlib.util.find_spec(name) is None:
                pytest.skip(f"{name} is not installed")


FRAMEWORKS = "torch", "tensorflow", "keras", "jax", "albumentations"


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Any:
    """Skip a file of tests that imports a framework which is not installed."""
    report = yield
    if report.outcome == "failed":
        text = str(report.longrepr)
        missing = [name for name in FRAMEWORKS if f"No module named '{name}" in text]
        if missing and importlib.util.find_spec(missing[0]) is None:
            report.outcome = "skipped"
            report.longrepr = str(collector.path), 0, f"Skipped: {missing[0]} is not installed"
    return report


_without_environment: set[str] = set()


def _is_marked(pid: str) -> bool:
    """Whether a process has inherited ours. One that has just begun another program has none for a moment."""
    try:
        found = _environment_of(pid)
        if not found and pid not in _without_environment and os.readlink(f"/proc/{pid}/exe"):  # no thread of the kernel
            deadline = time.monotonic() + 0.5
            while not (found := _environment_of(pid)) and time.monotonic() < deadline:
                time.sleep(0.001)
            if not found:
                _without_environment.add(pid)
        return MARK in found.split(b"\0")
    except OSError:  # it has ended, or is somebody else's
        return False


def _environment_of(pid: str) -> bytes:
    with open(f"/proc/{pid}/environ", "rb") as file:  # half the time of a Path
        return file.read()


def _below(pid: str) -> Iterator[str]:
    """The children of a process, and theirs."""
    with contextlib.suppress(OSError):  # it has ended
        for thread in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split():
                yield child
                yield from _below(child)


_others: set[str] = set()  # processes that have been there since they were last looked at, and are not ours


def processes() -> set[str]:
    """Children, theirs, and what has lost its parent; zombies too. (psutil takes five times as long to find them.)"""
    own, there = str(os.getpid()), set(filter(str.isdigit, os.listdir("/proc")))
    _others.intersection_update(there)
    marked = set(filter(_is_marked, there - _others))
    _others.update(there - marked)
    found = {*marked, *_below(own)} - {own}
    return {f"process {pid}" for pid in found}


def threads() -> set[str]:
    of_python = [thread for thread in threading.enumerate() if not isinstance(thread, threading._DummyThread)]
    return {f"thread {thread.name} {thread.ident}" for thread in of_python}


def descriptors() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the one that lists
        found.add(f"descriptor {name} -> {target}")
    return found


def shared_names() -> set[str]:
    """Names in /dev/shm, but for what another program on this machine has mapped."""
    names = {f"/dev/shm/{name}" for name in os.listdir("/dev/shm")}
    if names:
        own = str(os.getpid())
        for pid in filter(str.isdigit, os.listdir("/proc")):
            if pid != own and not _is_marked(pid):
                names -= _mapped(pid)
    return names


def _mapped(pid: str) -> set[str]:
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return set()
    return {line[line.index("/dev/shm/") :] for line in lines if "/dev/shm/" in line}


LOCKS = type(threading.Lock()), type(threading.RLock())


def held_locks() -> set[str]:
    """Those of our modules: one that a Ctrl-C has left locked makes all other threads wait."""
    modules = [(name, module) for name, module in sys.modules.items() if name.startswith("workers.")]
    named = {f"lock {name}.{key}": each for name, module in modules for key, each in vars(module).items()}
    return {name for name, lock in named.items() if isinstance(lock, LOCKS) and not repr(lock).startswith("<unlocked")}


WATCHED: list[Callable[[], set[str]]] = [processes, threads, descriptors, shared_names, held_locks]


def everything() -> set[str]:
    return set().union(*(look() for look in WATCHED))


_num_modules = 0  # that were imported when the garbage collector was last told to leave them alone


def _leave_out_modules() -> None:
    """With TensorFlow and its like imported, each look at all objects takes half a second."""
    global _num_modules
    if len(sys.modules) != _num_modules:
        _num_modules = len(sys.modules)
        gc.collect()
        gc.freeze()


def _kept() -> set[str]:
    """What belongs to the servers that stay for the next pool; their workers are not theirs to keep."""
    found = set()
    for server in server_handle._servers:
        if not server.pools:
            found |= {f"process {server.process.pid}", f"descriptor {server.channel.fileno()} "}
            found |= {f"descriptor {server.page.descriptor} "}
    return found


def _left(before: set[str]) -> set[str]:
    kept = _kept()
    return {each for each in everything() - before if each not in kept and f"{each.partition('->')[0]}" not in kept}


@pytest.fixture(autouse=True)
def police(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails a test that leaves something behind; ends the run, with all stacks, if one hangs.

    The server that all pools of a test process share may stay, but for tests that are marked ``own_server``.
    """
    has_own = request.node.get_closest_marker("own_server") is not None
    if has_own:
        server_handle.end_idle()
    else:
        monkeypatch.setattr(server_handle, "_LONG_S", 0.0)
    _leave_out_modules()
    before = everything()
    faulthandler.dump_traceback_later(DEADLINE_S, exit=True, file=_terminal or 2)
    try:
        yield
        gc.collect()
        deadline = time.monotonic() + PATIENCE_S
        while (left := _left(before)) and time.monotonic() < deadline:
            gc.collect()
            if has_own:
                server_handle.end_idle()  # of a pool that has ended only now
            time.sleep(0.01)
        assert not left, f"left behind: {sorted(left)}"
    finally:
        faulthandler.cancel_dump_traceback_later()
