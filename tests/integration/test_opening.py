"""``workers.open``: paths and URLs, in the program and in workers."""

from __future__ import annotations

import builtins
import contextlib
import functools
import http.server
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import workers
from workers import prefetch


def read_lines(path: str) -> Iterator[tuple[str, int]]:
    with workers.open(path) as file:
        for number, line in enumerate(file):
            yield line.strip(), number


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for shard in range(5):
        (tmp_path / f"{shard}.txt").write_text("".join(f"line {number} of {shard}\n" for number in range(shard + 1)))
    return tmp_path


@contextlib.contextmanager
def served(folder: Path, num_failing: int = 0) -> Iterator[str]:
    """The URL of a server of that folder, whose first answers are errors."""
    left = [num_failing]

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if left[0]:
                left[0] -= 1
                self.send_error(503)
            else:
                super().do_GET()

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


EVERY = [(f"line {number} of {shard}", number) for shard in range(5) for number in range(shard + 1)]


@pytest.mark.needs("fsspec")
@pytest.mark.parametrize("nb_workers", [0, 2, "auto"])
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_paths(nb_workers: Any, scheme: str, folder: Path) -> None:
    paths = [f"{scheme}{folder}/{shard}.txt" for shard in range(5)]
    with prefetch(paths, 0, seed=1).map(read_lines).prefetch(nb_workers) as lines:
        assert list(lines) == EVERY


@pytest.mark.own_server
@pytest.mark.needs("fsspec", "aiohttp")
@pytest.mark.parametrize("options", [{"nb_workers": 2}, {"nb_workers": 2, "executor": "thread"}])
def test_urls(options: dict[str, Any], folder: Path) -> None:
    """In workers only: fsspec keeps a thread for its connections in a process that has had one."""
    with served(folder, num_failing=2) as url:
        paths = [f"{url}/{shard}.txt" for shard in range(5)]
        if "executor" in options:
            paths = [f"{folder}/{shard}.txt" for shard in range(5)]
        loop = prefetch(paths, 0, seed=1).map(read_lines).prefetch(**options, on_error="retry", retry_wait=0.01)
        with loop as lines:
            assert list(lines) == EVERY


@pytest.mark.needs("fsspec")
def test_bytes_and_options(folder: Path) -> None:
    with workers.open(folder / "0.txt", "rb") as file:
        assert file.read() == b"line 0 of 0\n"
    with workers.open(f"file://{folder}/0.txt", "rb") as file:
        assert file.read() == b"line 0 of 0\n"
    with workers.open(folder / "new.txt", "w", encoding="utf-16") as file:
        file.write("é")
    assert (folder / "new.txt").read_text("utf-16") == "é"


@pytest.mark.needs("fsspec")
def test_what_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (folder / "none.txt", f"file://{folder}/none.txt"):
        with pytest.raises(FileNotFoundError):
            workers.open(path)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ImportError, match=r"'s3://bucket/a' is a URL, and opening it needs fsspec: pip install"):
        workers.open("s3://bucket/a")
    assert workers.open is not builtins.open
