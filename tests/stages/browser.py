"""A headless Chromium, spoken to by its DevTools protocol over a pipe: no driver and no port is needed.

with Browser(binary, tmp_path) as browser:
    page = browser.open("file:///report.html")
    page.evaluate("document.title")
"""

import base64
import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any, Self


class Browser:
    """The process; `events` holds every message that was no answer."""

    def __init__(self, binary: str, profile: Path, width: int = 1280, height: int = 900):
        self.events: list[dict[str, Any]] = []
        self._answers: dict[int, dict[str, Any]] = {}
        self._number, self._buffer = 0, b""
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        options = f"--headless --no-sandbox --disable-gpu --remote-debugging-pipe --window-size={width},{height}"
        # The pipe must be descriptors 3 and 4 of the browser.
        command = f'exec "$0" {options} --no-first-run --user-data-dir="$1" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            ["bash", "-c", command, binary, str(profile)],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._out)
        os.close(self._in)

    def open(self, url: str, scheme: str = "light", width: int = 1280) -> "Page":
        """A tab that has loaded `url`; TimeoutError where it does not in a minute."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable", session)
        wanted = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", session, features=wanted)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", session, **size)
        started = time.perf_counter()
        self.call("Page.navigate", session, url=url)
        self._until(lambda: any(self._is(e, "Page.loadEventFired", session) for e in self.events))
        return Page(self, session, time.perf_counter() - started)

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """The result of one command; RuntimeError where the browser refuses it."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        number = self._number
        self._until(lambda: number in self._answers)
        answer = self._answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _until(self, done, seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not done():
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError("the browser does not answer")
            read = os.read(self._in, 1 << 20)
            if not read:
                raise RuntimeError("the browser has ended")
            *messages, self._buffer = (self._buffer + read).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self._answers[message["id"]] = message
                else:
                    self.events.append(message)

    @staticmethod
    def _is(event: dict[str, Any], method: str, session: str) -> bool:
        return event["method"] == method and event.get("sessionId") == session


class Page:
    """A loaded tab; `seconds` is what it took to load."""

    def __init__(self, browser: Browser, session: str, seconds: float):
        self._browser, self._session, self.seconds = browser, session, seconds

    def evaluate(self, code: str) -> Any:
        """The value of an expression in the page; RuntimeError where it throws."""
        told = self._browser.call(
            "Runtime.evaluate", self._session, expression=code, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in told:
            raise RuntimeError(json.dumps(told["exceptionDetails"]))
        return told["result"].get("value")

    def press(self, key: str) -> None:
        """A key on what has the focus."""
        text = {"Enter": "\r"}.get(key, key)
        code = {"Enter": 13, " ": 32}.get(key, 0)
        for kind in ("keyDown", "keyUp"):
            given = {"text": text} if kind == "keyDown" else {}
            self._browser.call(
                "Input.dispatchKeyEvent", self._session, type=kind, key=key, windowsVirtualKeyCode=code, **given
            )

    def requests(self) -> list[str]:
        """Every address that the page asked for."""
        return [e["params"]["request"]["url"] for e in self._events("Network.requestWillBeSent")]

    def complaints(self) -> list[str]:
        """Errors and warnings of the page's scripts and of the browser about it."""
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(e["params"]) for kind in kinds for e in self._events(kind)]

    def screenshot(self, file: Path, whole: bool = True) -> None:
        """A picture of the page, from its top to its end."""
        told = self._browser.call("Page.captureScreenshot", self._session, captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(told["data"]))

    def _events(self, method: str) -> list[dict[str, Any]]:
        return [e for e in self._browser.events if Browser._is(e, method, self._session)]
