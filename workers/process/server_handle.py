"""The server, as the consumer has it: starts its process, and holds the other end of its socket."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

from workers.errors import PlatformError

from . import channel as channels
from .channel import Channel

_PROGRAM = """\
import sys
sys.path[:] = {path!r}
from workers.process.server import main
main({descriptor}, {consumer})
"""


class ServerHandle:
    """A running server."""

    def __init__(self) -> None:
        mine, theirs = channels.pair()
        try:
            self._process = _launch(theirs)
        except BaseException:
            mine.close()
            raise
        finally:
            theirs.close()
        mine.setblocking(False)
        self.channel = Channel(mine)

    def wait(self) -> int:
        """It has ended: its status."""
        self.channel.close()
        return self._process.wait()

    def close(self) -> None:
        """End it; it kills what is left of the workers. Blocks: until it has ended."""
        with contextlib.suppress(OSError):  # gone already; else it is told, though forks of ours hold the socket too
            self.channel.socket.shutdown(socket.SHUT_RDWR)
        self.channel.close()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _launch(theirs: socket.socket) -> subprocess.Popen[bytes]:
    if not sys.executable:
        raise PlatformError('sys.executable is not set: use nb_workers=0 or executor="thread" here')
    here = str(Path(__file__).resolve().parents[2])  # where the package workers lies
    path = sys.path if here in sys.path else [*sys.path, here]
    environment = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        environment.setdefault(name, "1")  # each worker is one thread; the user's own choice stands
    # The order of a set of strings is then the same in every run.
    environment.setdefault("PYTHONHASHSEED", "0")
    code = _PROGRAM.format(path=path, descriptor=theirs.fileno(), consumer=os.getpid())
    return subprocess.Popen(
        [sys.executable, "-c", code],
        pass_fds=[theirs.fileno()],
        env=environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is the consumer's to handle
    )
