"""Headless Chromium over its DevTools pipe: two file descriptors and JSON, no driver and no package."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # root in a container has no namespaces to sandbox with
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


def executable() -> str | None:
    """The browser's path; None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """One tab. `problems`: console errors, uncaught exceptions and failed requests since it was opened."""

    def __init__(self, process: subprocess.Popen[bytes], to: int, back: int, limit: float) -> None:
        self._process, self._to, self._back, self.limit = process, to, back, limit
        self._buffer, self._last, self._session = b"", 0, ""
        self._events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its result."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read(method)
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer.get("result", {})
            self._events.append(answer)

    def _read(self, waiting_for: str) -> dict[str, Any]:
        deadline = time.monotonic() + self.limit
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._back], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._back, 1 << 16) if ready else b""
            if not data:
                what = "ended" if self._process.poll() is not None else f"did not answer for {self.limit:.0f} s"
                raise RuntimeError(f"Chromium {what} while waiting for {waiting_for}")
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path, width: int, height: int = 900, scheme: str = "light") -> None:
        """Load a file in a window of `width` pixels; returns when it is loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self._events):
            self._events.append(self._read("the page"))

    def evaluate(self, expression: str) -> Any:
        """A JavaScript expression's value."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    @property
    def problems(self) -> list[str]:
        """What the page complained of since it was opened."""
        out = []
        for event in self._events:
            method, facts = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                out.append(f"exception: {facts['exceptionDetails'].get('text')}")
            elif method == "Log.entryAdded" and facts["entry"]["level"] in ("error", "warning"):
                out.append(f"{facts['entry']['level']}: {facts['entry']['text']}")
            elif method == "Runtime.consoleAPICalled" and facts["type"] in ("error", "warning", "assert"):
                out.append(f"console: {facts['args']}")
            elif method == "Network.loadingFailed":
                out.append(f"failed request: {facts.get('errorText')}")
        return out

    @property
    def requests(self) -> list[str]:
        """Addresses that the page has asked for."""
        asked = [
            event["params"]["request"]["url"]
            for event in self._events
            if event.get("method") == "Network.requestWillBeSent"
        ]
        return [url for url in asked if not url.startswith("data:")]

    def screenshot(
        self, path: Path, *, whole: bool = True, clip: tuple[float, float, float, float] | None = None
    ) -> None:
        """A PNG of the page, or of x, y, width, height of it."""
        extra: dict[str, Any] = {"captureBeyondViewport": whole or clip is not None}
        if clip is None and whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = (0, 0, size["width"], size["height"])
        if clip is not None:
            extra["clip"] = dict(zip(("x", "y", "width", "height"), clip, strict=True), scale=1)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png", **extra)["data"]))

    def pdf(self) -> bytes:
        """The page as it is printed on A4."""
        found = self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, printBackground=True)
        return base64.b64decode(found["data"])


@contextlib.contextmanager
def chromium(profile: Path, limit: float = 60.0) -> Iterator[Page]:
    """A browser with an empty profile in `profile`; it is ended with the block. `limit`: seconds for one answer."""
    program = executable()
    assert program is not None
    to_read, to_write = os.pipe()
    back_read, back_write = os.pipe()

    def in_place() -> None:
        # Chromium reads commands from descriptor 3 and answers on 4.
        source, target = os.dup(to_read), os.dup(back_write)
        os.dup2(source, 3)
        os.dup2(target, 4)

    command = [program, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(
        command, preexec_fn=in_place, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(to_read)
    os.close(back_write)
    try:
        yield Page(process, to_write, back_read, limit)
    finally:
        os.close(to_write)
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(back_read)
