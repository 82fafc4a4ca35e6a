"""A headless Chromium for tests, driven over its DevTools protocol."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from websockets.sync.client import ClientConnection, connect

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--remote-debugging-port=0",
)
_PATIENCE = 60.0


def find_chromium() -> str | None:
    """Its program, under any of the names that distributions give it."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return next((path for name in names if (path := shutil.which(name))), None)


class Browser:
    """A browser process; `open` opens pages."""

    def __init__(self, profile: Path, size: tuple[int, int] = (1440, 900)) -> None:
        """
        Args:
            profile: an empty folder.
            size: (width, height) px of a page.
        """
        program = find_chromium()
        assert program is not None
        self._size = size
        window = f"--window-size={size[0]},{size[1]}"
        self._log = (profile / "chromium.log").open("wb")
        self._process = subprocess.Popen(
            [program, *_FLAGS, window, f"--user-data-dir={profile}", "about:blank"],
            stdout=self._log,
            stderr=self._log,
        )
        self._port_file = profile / "DevToolsActivePort"
        self._tabs: list[Tab] = []

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for tab in self._tabs:
            tab.close()
        self._process.terminate()
        try:
            self._process.wait(timeout=10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def open(self, url: str) -> Tab:
        """A new page."""
        request = urllib.request.Request(f"{self._address()}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
            tab = Tab(json.load(answer)["webSocketDebuggerUrl"], self._size)
        self._tabs.append(tab)
        tab.go(url)
        return tab

    def _address(self) -> str:
        deadline = time.monotonic() + _PATIENCE
        while not self._port_file.is_file() or not self._port_file.read_text().strip():
            assert self._process.poll() is None, "Chromium ended at once"
            assert time.monotonic() < deadline, "Chromium does not come up"
            time.sleep(0.05)
        return f"http://127.0.0.1:{self._port_file.read_text().split()[0]}"


class Tab:
    """One page of a browser."""

    def __init__(self, address: str, size: tuple[int, int]) -> None:
        self._socket: ClientConnection = connect(address, max_size=None, compression=None)
        self._number = 0
        self.errors: list[str] = []
        """What the page's scripts raised."""
        for domain in ("Page", "Runtime"):
            self.call(f"{domain}.enable")
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)

    def close(self) -> None:
        self._socket.close()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; its result."""
        self._number += 1
        number = self._number
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=_PATIENCE))
            if message.get("method") == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(message["params"]["exceptionDetails"]))
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message.get("result", {})  # type: ignore[no-any-return]

    def go(self, url: str) -> None:
        """Load another address."""
        self.call("Page.navigate", url=url)

    def show(self) -> None:
        """Bring the page to the front: browsers draw no others."""
        self.call("Page.bringToFront")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited where it is a promise."""
        result = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """Press and release a key by its name and number."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                **text,
            )

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def click(self, expression: str) -> None:
        """Click with the mouse on the middle of the element that an expression finds."""
        place = self.evaluate(
            f"(() => {{ const r = ({expression}).getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=place[0],
                y=place[1],
                button="left",
                clickCount=1,
            )

    def screenshot(self, path: Path) -> bytes:
        """The page as it looks, as PNG, kept in a file."""
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return data
