"""Chromium without a screen, driven over a pipe by the DevTools protocol: no package needed."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

PROGRAM = shutil.which("chromium")
needs_browser = pytest.mark.skipif(PROGRAM is None, reason="no browser here")
# Seconds after which an answer is not waited for any more.
PATIENCE = 60
KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Escape": 27, "Tab": 9}


MIDDLE = """(selector) => {
  const element = document.querySelector(selector);
  element.scrollIntoView({block: "center", inline: "center"});
  const box = element.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
}"""
CHOOSE = """(selector, value) => {
  const element = document.querySelector(selector);
  element.value = value;
  element.dispatchEvent(new Event("input", {bubbles: true}));
}"""


def started(words: list[str], to_browser: int, from_browser: int) -> int:
    """The process of the program, which reads from 3 and writes to 4. The descriptors are closed
    here.
    """
    # Above those that are put into their places, one after the other.
    high = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 10) for each in (to_browser, from_browser)]
    actions = [
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, high[0], 3),
        (os.POSIX_SPAWN_DUP2, high[1], 4),
    ]
    process = os.posix_spawn(words[0], words, os.environ, file_actions=actions)
    for each in (to_browser, from_browser, *high):
        os.close(each)
    return process


class Browser:
    """One page. What it wrote on its console as an error, or threw, is in `errors`."""

    def __init__(self, profile: Path, width: int = 1280, height: int = 900):
        to_browser, self.writing = os.pipe()
        self.reading, from_browser = os.pipe()
        flags = (
            "--headless --no-sandbox --disable-gpu --remote-debugging-pipe --hide-scrollbars "
            "--no-first-run --disable-extensions --disable-background-networking"
        )
        words = [str(PROGRAM), *flags.split(), f"--user-data-dir={profile}", "about:blank"]
        self.process = started(words, to_browser, from_browser)
        self.buffer = b""
        self.number = 0
        self.session = ""
        self.errors: list[str] = []
        self.asked: list[str] = []
        # Loaders whose page is there with all that it loads.
        self.loaded: set[str] = set()
        (page,) = [
            target
            for target in self.call("Target.getTargets")["targetInfos"]
            if target["type"] == "page"
        ]
        target = {"targetId": page["targetId"], "flatten": True}
        self.session = self.call("Target.attachToTarget", **target)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)
        self.resize(width, height)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *error: object) -> None:
        self.session = ""
        with_id = json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0"
        with suppress(BrokenPipeError):
            os.write(self.writing, with_id)
        deadline = time.monotonic() + 10
        while not os.waitpid(self.process, os.WNOHANG)[0]:
            if time.monotonic() > deadline:
                os.kill(self.process, signal.SIGKILL)
                os.waitpid(self.process, 0)
                break
            time.sleep(0.02)
        os.close(self.writing)
        os.close(self.reading)

    # --- the protocol

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """What the browser answers. Raises AssertionError for a refusal."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writing, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read()
            if answer.get("id") == self.number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.hear(answer)

    def read(self) -> dict[str, Any]:
        """The next message."""
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.reading], [], [], max(0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            piece = os.read(self.reading, 2**20)
            assert piece, "the browser has ended"
            self.buffer += piece
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def hear(self, event: dict[str, Any]) -> None:
        """Notes what the page says by itself."""
        method, params = event.get("method", ""), event.get("params", {})
        if method == "Page.lifecycleEvent" and params["name"] == "load":
            self.loaded.add(params["loaderId"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"].get("exception", params)))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.errors.append(str(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])

    # --- what a reader does

    def open(self, page: Path | str) -> None:
        """Loads a page, and waits for its load event."""
        url = page if isinstance(page, str) else page.resolve().as_uri()
        # Another place of the same page would not be loaded.
        for each in ("about:blank", url):
            loader = self.call("Page.navigate", url=each)["loaderId"]
            while loader not in self.loaded:
                self.hear(self.read())

    def ask(self, script: str) -> Any:
        """The value of an expression; a promise is waited for."""
        answer = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, script: str) -> None:
        """Waits until an expression is true, for what the page does a little later."""
        deadline = time.monotonic() + PATIENCE
        while not self.ask(script):
            assert time.monotonic() < deadline, f"never true: {script}"
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        """The text of the first element."""
        return self.ask(f"document.querySelector({json.dumps(selector)}).textContent")

    def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        """Of the window, in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )

    def colors(self, scheme: str) -> None:
        """As the system has them: light or dark."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def key(self, name: str, text: str = "") -> None:
        """Presses and releases a key."""
        code = KEYS.get(name) or {"Enter": 13, " ": 32}.get(name, ord(name[0].upper()))
        text = text or {"Enter": "\r", " ": " "}.get(name, "")
        common = {"key": name, "windowsVirtualKeyCode": code}
        kind = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
        self.call("Input.dispatchKeyEvent", **kind, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def point(self, selector: str, *, click: bool = False) -> None:
        """Moves the mouse to the middle of an element, which is scrolled into view."""
        x, y = self.ask(f"({MIDDLE})({json.dumps(selector)})")
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        if click:
            button = {"x": x, "y": y, "button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type="mousePressed", **button)
            self.call("Input.dispatchMouseEvent", type="mouseReleased", **button)

    def choose(self, selector: str, value: str) -> None:
        """Types or chooses a value."""
        self.ask(f"({CHOOSE})({json.dumps(selector)}, {json.dumps(value)})")

    def picture(self, path: Path, *, whole: bool = False) -> Path:
        """A screenshot as PNG; whole: of all of the page."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def pdf(self) -> bytes:
        """The page as it is printed. The first print asks for pictures that were not shown yet and
        does not wait for them: it is printed until two prints are alike.
        """
        deadline = time.monotonic() + PATIENCE
        before, printed = b"", self.print()
        while printed.count(b"/Image") != before.count(b"/Image"):
            assert time.monotonic() < deadline, "each print has other pictures"
            before, printed = printed, self.print()
        return printed

    def print(self) -> bytes:
        printed = self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        return base64.b64decode(printed["data"])
