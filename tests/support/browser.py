"""A headless Chromium that opens a page, driven over its DevTools protocol by two pipes: no package is needed."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--no-zygote",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
]


def program() -> str | None:
    """Where it is installed; None if it is not."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """The page of a browser. ``problems``: the errors, warnings and exceptions of its console, and its requests."""

    def __init__(self, commands: int, answers: int) -> None:
        self.problems: list[Any] = []
        self.requests: list[str] = []
        self._commands, self._answers = open(commands, "wb", 0), open(answers, "rb", 0)  # noqa: SIM115
        self._left, self._session, self._number, self._events = b"", None, 0, list[str]()
        [target] = [each for each in self.send("Target.getTargets")["targetInfos"] if each["type"] == "page"]
        attached = self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for name in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{name}.enable")

    def send(self, method: str, **params: Any) -> Any:
        """Send a command, and return its result."""
        self._number += 1
        session = {} if self._session is None else {"sessionId": self._session}
        message = {"id": self._number, "method": method, "params": params, **session}
        self._commands.write(json.dumps(message).encode() + b"\0")
        while (message := self._receive()).get("id") != self._number:
            self._note(message)
        assert "error" not in message, (method, message["error"])
        return message["result"]

    def open(self, url: str) -> None:
        self._events.clear()
        self.send("Page.navigate", url=url)
        while "Page.loadEventFired" not in self._events:
            self._note(self._receive())
        self.frame()

    def run(self, expression: str) -> Any:
        """The value of an expression of JavaScript, of a promise too."""
        done = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def frame(self) -> None:
        """Wait until the page was drawn, with what it has asked to be drawn next."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def look(self, width: int, height: int = 900, scheme: str = "light", ratio: float = 1, touch: bool = False) -> None:
        """Set the size of the window, in pixels of CSS, and the colours that the user prefers."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=ratio, mobile=touch
        )
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.send("Emulation.setTouchEmulationEnabled", enabled=touch)
        self.frame()

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)
        self.frame()

    def press(self, key: str, **more: Any) -> None:
        text = {"text": key} if len(key) == 1 else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, **text, **more)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, **more)
        self.frame()

    def screenshot(self, path: Path, **more: Any) -> None:
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", **more)["data"]))

    def close(self) -> None:
        """End the browser. It answers, or not."""
        self._session = None
        with contextlib.suppress(EOFError, BrokenPipeError):
            self.send("Browser.close")
            while True:
                self._receive()
        self._commands.close()
        self._answers.close()

    def _receive(self) -> Any:
        while b"\0" not in self._left:
            more = self._answers.read(1 << 20)
            if not more:
                raise EOFError("the browser has ended")
            self._left += more
        message, _, self._left = self._left.partition(b"\0")
        return json.loads(message)

    def _note(self, message: Any) -> None:
        method, params = message.get("method", ""), message.get("params", {})
        self._events.append(method)
        if method in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.problems.append(params)
        if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.problems.append(params["args"])
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])


def _pipe() -> list[int]:
    """The ends of a pipe, none of them 3 or 4, which the browser needs for itself."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 64) for end in ends]
    for end in ends:
        os.close(end)
    return high


@contextlib.contextmanager
def browser() -> Iterator[Page]:
    """The page of a new browser, which ends with the block."""
    # Not in a test's own folder: the path of a socket may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="browser") as folder:
        yield from _browser(folder)


def _browser(folder: str) -> Iterator[Page]:
    path = program()
    assert path is not None
    (read_commands, commands), (answers, write_answers) = _pipe(), _pipe()
    # The browser reads commands from descriptor 3 and answers to 4.
    begin = f'exec "$@" 3</dev/fd/{read_commands} 4>/dev/fd/{write_answers}'
    process = subprocess.Popen(
        ["/bin/sh", "-c", begin, "sh", path, *FLAGS, f"--user-data-dir={folder}", "about:blank"],
        pass_fds=(read_commands, write_answers),
        env={**os.environ, "HOME": folder, "TMPDIR": folder},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read_commands)
    os.close(write_answers)
    page = None
    try:
        page = Page(commands, answers)
        yield page
    finally:
        if page is None:
            os.close(commands)
            os.close(answers)
            process.kill()
        else:
            try:
                page.close()
            except BaseException:
                process.kill()
                raise
        process.wait()
