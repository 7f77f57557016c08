"""What the workers need is imported once, in their server; what must not be forked is not."""

from __future__ import annotations

import importlib
import logging
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from faulty import servers, wait_for, worker_processes

import workers
from workers.process import server_handle

pytestmark = pytest.mark.own_server

LENGTH = 12
COUNTED = """
    import os
    with open(os.environ["IMPORTS"], "a") as file:
        file.write(f"{os.getpid()}\\n")
    class Mine:
        def __len__(self):
            return 12
        def __getitem__(self, index):
            return index, os.getpid(), os.environ.get("SAID")
"""

Write = Callable[..., Any]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a module and imports it: ``write("mine", code)``."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("IMPORTS", str(tmp_path / "imports"))
    monkeypatch.delenv("SAID", raising=False)

    def write(name: str, code: str) -> Any:
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(COUNTED) + textwrap.dedent(code))
        monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        module = importlib.import_module(name)
        (tmp_path / "imports").write_text("")
        return module

    return write


def importers() -> list[int]:
    """The processes that have imported the module, but for this one."""
    with open(os.environ["IMPORTS"]) as file:
        return [int(line) for line in file]


@pytest.fixture
def keep_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if all imports took long."""
    monkeypatch.setattr(server_handle, "_LONG_S", 0.0)


def test_an_import_serves_all_workers(write: Write, keep_servers: None) -> None:
    """Those of a pool, one that replaces another, and those of the next pool and of one beside it."""
    mine = write("mine_once", "")
    with workers.prefetch(mine.Mine(), 3) as batches:
        assert len(list(batches)) == LENGTH
        (server,) = servers()
        before = {worker.pid for worker in worker_processes()}
        psutil.Process(min(before)).kill()
        wait_for(lambda: {worker.pid for worker in worker_processes()} - before)
        with workers.prefetch(mine.Mine(), 2) as others:
            assert len(list(others)) == len(list(batches)) == LENGTH
            assert servers() == [server]
            assert len(worker_processes()) == 5
        wait_for(lambda: len(worker_processes()) == 3)
        assert len(list(batches)) == LENGTH
    assert not worker_processes()
    with workers.prefetch(mine.Mine(), 1) as batches:
        assert len(list(batches)) == LENGTH
    assert servers() == [server]
    assert importers() == [server.pid]


def use(mine: Any, nb_workers: int = 1) -> None:
    with workers.prefetch(mine.Mine(), nb_workers) as batches:
        assert [batch[0] for batch in batches] == list(range(LENGTH))


def test_an_idle_server_imports_what_is_missing(write: Write, keep_servers: None) -> None:
    one, two = write("mine_one", ""), write("mine_two", "")
    use(one)
    (server,) = servers()
    with workers.prefetch(two.Mine(), 2) as batches:
        assert len(list(batches)) == LENGTH
        assert servers() == [server]
    use(one)
    use(two)
    assert servers() == [server]
    assert importers() == [server.pid] * 2


def test_a_server_that_a_pool_needs_imports_nothing_more(write: Write, keep_servers: None) -> None:
    """The pool's workers may die meanwhile, and have to be replaced."""
    one, two = write("mine_first", ""), write("mine_second", "")
    with workers.prefetch(one.Mine(), 1) as batches:
        list(batches)
        (server,) = servers()
        use(two)
        assert len(servers()) == 2
        assert sorted(importers()) == sorted(each.pid for each in servers())
        assert server in servers()


def test_a_pool_ends_while_an_idle_server_imports(
    write: Write, keep_servers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_handle, "_END_S", 0.3)
    one = write("mine_quick_one", "")
    slow = write("mine_slow_one", f"import time\nif os.getpid() != {os.getpid()}:\n    time.sleep(1000)\n")
    use(one)
    (server,) = servers()
    batches = workers.SequenceMap(slow.Mine(), 1)
    batches.initializer()
    wait_for(lambda: importers() == [server.pid] * 2)
    batches.close()
    assert not servers()
    use(one)


def test_a_server_with_quick_imports_does_not_stay(write: Write) -> None:
    mine = write("mine_quick", "")
    with workers.prefetch(mine.Mine(), 1) as batches:
        list(batches)
    assert not servers()


HAZARDS = {
    "thread": ("import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()", "the thread"),
    "file": ("held = open(__file__)", "it has opened .*mine_file_"),
    "socket": ("import socket; held = socket.socketpair()", "it has opened socket:"),
    "device": ("held = open('/dev/fuse') if __import__('os').path.exists('/dev/fuse') else open(__file__)", "opened /"),
}


@pytest.mark.parametrize("is_idle", [False, True], ids=["new server", "idle server"])
@pytest.mark.parametrize("hazard", HAZARDS)
def test_what_must_not_be_forked(
    write: Write, hazard: str, is_idle: bool, keep_servers: None, caplog: pytest.LogCaptureFixture
) -> None:
    """Each worker imports it for itself, and the log says why."""
    caplog.set_level(logging.INFO, "workers")
    before = None
    if is_idle:
        use(write("mine_before", ""))
        (before,) = servers()
    name = f"mine_{hazard}_{is_idle}"
    code, reason = HAZARDS[hazard]
    code = f"if os.getpid() != {os.getpid()}:\n    {code}\n"
    mine = write(name, code)
    with workers.prefetch(mine.Mine(), 2) as batches:
        assert [batch[0] for batch in batches] == list(range(LENGTH))
        (server,) = servers()
        assert before in (None, server)

        def both_have() -> bool:  # one of them may have done all jobs before the other has begun
            found = {worker.pid for worker in worker_processes()}
            # The server has begun anew, with what it had imported before.
            return len(found) == 2 and sorted(importers()) == sorted([*[server.pid] * (1 + is_idle), *found])

        wait_for(both_have)
    assert any(name in line and "imported by each worker for itself" in line for line in caplog.messages)
    assert re.search(reason, caplog.text)


def test_a_log_that_is_only_written_to(write: Write, tmp_path: Path) -> None:
    mine = write("mine_log", f"held = open({str(tmp_path / 'log')!r}, 'a')")
    with workers.prefetch(mine.Mine(), 2) as batches:
        list(batches)
        assert importers() == [server.pid for server in servers()]
    mine.held.close()


@pytest.mark.parametrize("end", ["os._exit(3)", "os.abort()", "raise SystemExit(3)", "raise ImportError('x')"])
@pytest.mark.parametrize("is_idle", [False, True], ids=["new server", "idle server"])
def test_an_import_that_ends_the_server(write: Write, end: str, is_idle: bool, keep_servers: None) -> None:
    """What the server cannot import, the workers import for themselves."""
    me = os.getpid()
    if is_idle:
        use(write("mine_before_end", ""))
    mine = write("mine_end", f"if os.getppid() == {me}:\n    {end}\n")
    use(mine, 2)


def test_an_import_that_does_not_end(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    """Its stack is in the log."""
    mine = write("mine_slow", f"import time\nif os.getpid() != {os.getpid()}:\n    time.sleep(1000)\n")
    batches = workers.SequenceMap(mine.Mine(), 1, debug_job_report_timeout=0.3)
    batches.initializer()
    wait_for(lambda: "mine_slow.py" in caplog.text)
    assert "the loading of the sequence" in caplog.text
    batches.close()
    assert not servers()


def test_another_world_needs_another_server(
    write: Write, keep_servers: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where the environment, the folder, the path or a module's file has changed, a new pool sees it."""

    def answers() -> set[Any]:
        with workers.prefetch(mine.Mine(), 1) as batches:
            return {batch[2] for batch in batches}

    mine = write("mine_world", "")
    assert answers() == {None}
    first = servers()
    monkeypatch.setenv("SAID", "hello")
    assert answers() == {"hello"}
    second = servers()
    assert len(second) == 1
    assert second != first
    mine = write("mine_world", "class Mine(Mine):\n    def __getitem__(self, index):\n        return 0, 0, 'new'\n")
    os.utime(tmp_path / "mine_world.py", (1, 1))  # whatever the clock's steps
    assert answers() == {"new"}
    assert servers() != second
    third = servers()
    monkeypatch.chdir(tmp_path)
    assert answers() == {"new"}
    assert servers() != third


def test_workers_write_where_the_consumer_writes_now(write: Write, keep_servers: None, tmp_path: Path) -> None:
    mine = write("mine_print", "")
    with workers.prefetch(mine.Mine(), 1) as batches:
        list(batches)
    kept = os.dup(1)
    try:
        with open(tmp_path / "out", "w") as file:
            os.dup2(file.fileno(), 1)
        with workers.prefetch(range(3), 1).map(lambda item: print("item", item, flush=True)) as batches:
            list(batches)
    finally:
        os.dup2(kept, 1)
        os.close(kept)
    assert (tmp_path / "out").read_text().startswith("item 0\nitem 1\nitem 2\n")


def test_exit_functions(write: Write, tmp_path: Path) -> None:
    """What a module does at a program's end is done once, by the server; what a job adds, by its worker."""
    told = tmp_path / "told"
    mine = write(
        "mine_exit",
        f"""
        import atexit, weakref
        def tell(what):
            with open({str(told)!r}, "a") as file:
                file.write(f"{{what}} {{os.getpid()}}\\n")
        class Held: pass
        held = Held()
        if os.getpid() != {os.getpid()}:
            atexit.register(tell, "module")
            weakref.finalize(held, tell, "finalizer")
        class Mine(Mine):
            is_first = True  # the next epoch is begun with, too
            def __getitem__(self, index):
                if index == 0 and self.is_first:
                    self.is_first = False
                    atexit.register(tell, "job")
                    weakref.finalize(held, tell, "job's finalizer")
                return index
        """,
    )
    with workers.prefetch(mine.Mine(), 1) as batches:
        list(batches)
        (server,) = servers()
        (worker,) = worker_processes()
    wait_for(lambda: told.exists() and len(told.read_text().splitlines()) == 4)
    lines = [f"job {worker.pid}", f"job's finalizer {worker.pid}", f"module {server.pid}", f"finalizer {server.pid}"]
    assert sorted(told.read_text().splitlines()) == sorted(lines)


def test_a_fork_has_a_server_of_its_own(write: Write, keep_servers: None) -> None:
    mine = write("mine_fork", "")
    with workers.prefetch(mine.Mine(), 1) as batches:
        list(batches)
    (server,) = servers()
    child = os.fork()
    if child == 0:
        try:
            with workers.prefetch(mine.Mine(), 1) as batches:
                is_whole = len(list(batches)) == LENGTH
            server_handle.end_idle()
            os._exit(0 if is_whole else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    assert status == 0
    with workers.prefetch(mine.Mine(), 1) as batches:
        assert len(list(batches)) == LENGTH
    assert servers() == [server]


def test_a_server_that_stays_ends_with_the_program(write: Write, tmp_path: Path) -> None:
    write("mine_last", "import time\ntime.sleep(0.6)\n")
    code = """
        import mine_last, psutil, sys, workers
        with workers.prefetch(mine_last.Mine(), 1) as batches:
            list(batches)
        print(*[child.pid for child in psutil.Process().children()])
    """
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).resolve().parents[2])])
    command = [sys.executable, "-X", "dev", "-c", textwrap.dedent(code)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60, check=True
    )
    assert not done.stderr
    assert not psutil.pid_exists(int(done.stdout))


def test_a_pool_ends_while_another_begins() -> None:
    """The garbage collector may end one in the very thread that starts another, and holds the lock on the servers."""
    batches = workers.prefetch(range(5), 1)
    list(batches)
    with server_handle._lock:
        batches.close()
    assert not worker_processes()
    server_handle._tidy()
    assert not servers()


def test_worth_it() -> None:
    """Not what every server has, and not what is known to this program alone."""
    from workers.process.preload import modules_to_preload

    names = ["builtins", "os.path", "numpy.random", "workers.job.task", "__main__", "psutil", "of_nobody"]
    assert modules_to_preload(names) == {"psutil"}
