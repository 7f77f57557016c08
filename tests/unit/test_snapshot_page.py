"""The page of a pool's figures: what is read is whole, and nothing that goes wrong there reaches the program."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from publishing import lane, snapshot

from workers.report.snapshot_page import NAME, SnapshotPage, SnapshotReader, pages

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no memfd here")


@pytest.fixture
def page() -> Iterator[SnapshotPage]:
    page = SnapshotPage()
    yield page
    page.close()


@pytest.fixture
def reader(page: SnapshotPage) -> Iterator[SnapshotReader]:
    (number,) = [number for _, number in pages(os.getpid())]
    reader = SnapshotReader(os.getpid(), number)
    yield reader
    reader.close()


def run(program: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        close_fds=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


READS = """
import sys
from workers.report.snapshot_page import SnapshotReader

reader, seen = SnapshotReader(int(sys.argv[1]), int(sys.argv[2])), set()
while len(seen) < 500:
    found = reader.read()
    if found is None:  # it was written anew during each of many tries
        continue
    number = found["batches"]
    assert found["nbytes"] == number and found["name"] == str(number) * (number % 7), found
    assert [lane["jobs"] for lane in found["workers"]] == [number] * (number % 50), found
    assert not seen or number >= last, (number, last)
    last = number
    seen.add(number)
print(len(seen))
"""


def numbered(number: int) -> Any:
    lanes = [lane(jobs=number)] * (number % 50)
    return snapshot(batches=number, nbytes=number, name=str(number) * (number % 7), workers=lanes)


def test_a_reader_in_another_process_sees_whole_snapshots_in_their_order(page: SnapshotPage) -> None:
    """While they are written as fast as can be, and are of different lengths."""
    prepared = [numbered(number) for number in range(1000)]
    page.publish(prepared[0])
    ((_, number),) = pages(os.getpid())
    process = subprocess.Popen(
        [sys.executable, "-c", READS, str(os.getpid()), str(number)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    written = 0
    while process.poll() is None:
        written += 1
        page.publish(prepared[written] if written < len(prepared) else numbered(written))
    out, _ = process.communicate()
    assert (process.returncode, out) == (0, "500\n")


def test_what_is_being_written_is_not_read(page: SnapshotPage, reader: SnapshotReader) -> None:
    page.publish(snapshot(batches=1))
    page._words[0] += 1
    assert reader.read() is None
    page.publish(snapshot(batches=2))  # the writing before was interrupted
    assert reader.read() == snapshot(batches=2, **_times(reader))
    digit = bytes(page._bytes[:4096]).index(b'"batches":2') + len('"batches":')
    page._bytes[digit] += 1  # JSON as before
    assert reader.read() is None


def _times(reader: SnapshotReader) -> dict[str, Any]:
    found = reader.read()
    assert found is not None
    return {"since": found["since"], "at_ns": found["at_ns"]}


def test_what_changes_while_it_is_read_is_read_again(
    page: SnapshotPage, reader: SnapshotReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The length is that of the first one, and the text that of the second. Without the checksum, which would tell."""
    monkeypatch.setattr(zlib, "crc32", lambda text: 0)
    page.publish(snapshot(batches=1))
    pread, calls = os.pread, []

    def slow(descriptor: int, nbytes: int, offset: int) -> bytes:
        calls.append(nbytes)
        if len(calls) == 2:
            page.publish(snapshot(batches=2, name="a longer one" * 9))
        return pread(descriptor, nbytes, offset)

    monkeypatch.setattr(os, "pread", slow)
    found = reader.read()
    assert found is not None
    assert found["batches"] == 2
    assert len(calls) == 6


def test_a_page_grows_with_its_workers(page: SnapshotPage, reader: SnapshotReader) -> None:
    page.publish(snapshot())
    many = snapshot(workers=[lane(number) for number in range(3000)])
    page.publish(many)
    assert reader.read() == many
    few = snapshot(workers=[lane(7)])
    page.publish(few)
    assert reader.read() == few


def test_names_of_any_kind(page: SnapshotPage, reader: SnapshotReader) -> None:
    odd = snapshot(name="\udc80\0\x1b[2J\u2603\U0001f600", program='"\\')
    page.publish(odd)
    assert reader.read() == odd


def test_a_closed_page_is_gone(page: SnapshotPage, reader: SnapshotReader) -> None:
    assert reader.read() is None  # nothing was written yet
    page.publish(snapshot())
    assert reader.is_there()
    page.close()
    page.close()
    page.publish(snapshot())
    assert not reader.is_there()


def test_one_that_has_its_number_is_not_taken_for_it(page: SnapshotPage, reader: SnapshotReader) -> None:
    page.close()
    other = SnapshotPage()
    try:
        ((_, number),) = [(pid, number) for pid, number in pages(os.getpid()) if number != reader._descriptor]
        assert reader._path.endswith(f"/{number}"), "the system gives numbers out again"
        assert not reader.is_there()
    finally:
        other.close()


def test_a_fork_does_not_write_into_the_page(page: SnapshotPage, reader: SnapshotReader) -> None:
    before = snapshot()
    page.publish(before)
    pid = os.fork()
    if pid == 0:
        page.publish(snapshot(batches=99))
        os._exit(0)
    os.waitpid(pid, 0)
    assert reader.read() == before


WITHOUT = """
import os, resource, sys
from publishing import snapshot
from workers.report.snapshot_page import SnapshotPage

{}
page = SnapshotPage()
page.publish(snapshot())
assert not os.path.exists("/proc/self/fd/3")
page.close()
print("goes on")
"""


@pytest.mark.parametrize(
    "lack",
    ["del os.memfd_create; sys.platform = 'darwin'", "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))"],
    ids=["memfd", "descriptors"],
)
def test_without_a_page_the_program_goes_on(lack: str) -> None:
    assert run(WITHOUT.format(lack)) == "goes on\n"


def text_of(what: Any) -> bytes:
    text = json.dumps(what).encode()
    return struct.pack("3q", 2, len(text), zlib.crc32(text)) + text + b"\0"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"short", id="short"),
        pytest.param(struct.pack("3q", 2, 1 << 60, 0), id="too long"),
        pytest.param(struct.pack("3q", 2, -1, 0) + bytes(100), id="a negative length"),
        pytest.param(struct.pack("3q", 2, 3, zlib.crc32(b"{..")) + b"{.. ", id="no JSON"),
        pytest.param(text_of([1]), id="no snapshot"),
        pytest.param(text_of({**snapshot(), "workers": 3}), id="no workers"),
        pytest.param(text_of({**snapshot(), "workers": [{}]}), id="a worker of another version"),
        pytest.param(text_of({key: 0 for key in snapshot() if key != "ready"}), id="of another version"),
    ],
)
def test_what_is_no_page_of_ours_is_passed_over(content: bytes) -> None:
    descriptor = os.memfd_create(NAME)
    os.write(descriptor, content)
    reader = SnapshotReader(os.getpid(), descriptor)
    assert reader.read() is None
    reader.close()
    os.close(descriptor)


def test_a_page_has_no_name(page: SnapshotPage) -> None:
    """But for what the kernel shows of a descriptor; and programs that are started do not get it."""
    page.publish(snapshot())
    assert [pid for pid, _ in pages(os.getpid())] == [os.getpid()]
    here = "import os; from workers.report.snapshot_page import pages; print(list(pages(os.getpid())))"
    assert run(here) == "[]\n"
