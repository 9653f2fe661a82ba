"""A headless Chromium, spoken to over a pipe in the Chrome DevTools Protocol.

Source: https://chromedevtools.github.io/devtools-protocol/; messages end with a zero
byte, file descriptor 3 is read by the browser and 4 written.
"""

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--remote-debugging-pipe"
)
_WAIT_S = 300.0


def chromium_program() -> str | None:
    """The browser on the path, else the one that FEDTRAIN_CHROMIUM names."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    return found or os.environ.get("FEDTRAIN_CHROMIUM")


class Page:
    """One page of a browser."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = reading, writing
        self._number, self._rest, self._session = 0, b"", ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.call("Page.enable")

    def open(self, url: str) -> None:
        """Loads ``url`` and waits until its model is ready or could not be loaded."""
        self.call("Page.navigate", url=url)
        self.wait_for(
            "document.documentElement?.dataset.ready === 'yes' || "
            "document.querySelector('#result .problem') !== null"
        )

    def wait_for(self, expression: str) -> None:
        """Until ``expression`` is true."""
        end = time.monotonic() + _WAIT_S
        while not self.evaluate(expression):
            assert time.monotonic() < end, (expression, self.text())
            time.sleep(0.02)

    def text(self) -> str:
        """All that the page shows."""
        return str(self.evaluate("document.body.innerText"))

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; of what it promises, where it does."""
        found = self.call(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of one command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            pass
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            received = os.read(self._reading, 1 << 16)
            assert received, "the browser has ended"
            self._rest += received
        first, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        return message


@contextlib.contextmanager
def opened(program: str, profile: Path) -> Iterator[Page]:
    """A browser with an empty page; it ends with the block."""
    to_browser, from_browser = os.pipe(), os.pipe()
    redirected = f'exec "$@" 3<&{to_browser[0]} 4>&{from_browser[1]}'
    command = ["bash", "-c", redirected, "browser", program, *FLAGS.split()]
    process = subprocess.Popen(
        [*command, f"--user-data-dir={profile}"],
        pass_fds=(to_browser[0], from_browser[1]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser[0])
    os.close(from_browser[1])
    try:
        page = Page(from_browser[0], to_browser[1])
        yield page
        page.call("Page.close")
    finally:
        os.close(to_browser[1])
        process.terminate()
        process.wait(timeout=30)
        os.close(from_browser[0])
