"""A headless Chromium, told what to do by its own protocol over a pipe: no driver, no port."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

# Nothing that asks the network, or waits for it.
FLAGS = (
    "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--disable-extensions", "--force-color-profile=srgb",
)  # fmt: skip


def program() -> str | None:
    """Where Chromium is, if it is installed."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Chromium:
    """A process; each tab is a context of its own, without cookies of the others."""

    def __init__(self, path: str) -> None:
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        from_us, to_it = os.pipe()
        from_it, to_us = os.pipe()
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{from_us} 4>&{to_us}', path, *FLAGS,
             f"--user-data-dir={self._folder.name}"],
            pass_fds=(from_us, to_us), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(from_us)
        os.close(to_us)
        self._to_it, self._from_it = os.fdopen(to_it, "wb"), os.fdopen(from_it, "rb")
        self._waiting = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def ask(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """What it answers; raises AssertionError where it refuses."""
        self._number += 1
        call = {"id": self._number, "method": method, "params": params}
        self._to_it.write(json.dumps(call | ({"sessionId": session} if session else {})).encode() + b"\0")
        self._to_it.flush()
        while True:
            message = self._read()
            if message.get("id") == self._number:
                assert "error" not in message, message
                return dict(message["result"])
            self.events.append(message)

    def wait_for(self, method: str, session: str) -> dict[str, Any]:
        """The next event of that name; those that were told before are forgotten."""
        while True:
            for nth, event in enumerate(self.events):
                if event.get("method") == method and event.get("sessionId") == session:
                    del self.events[nth]
                    return dict(event["params"])
            self.events.append(self._read())

    def tab(self, **options: Any) -> Tab:
        """A new one."""
        return Tab(self, **options)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._to_it.close()
        self._from_it.close()
        self._folder.cleanup()

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._waiting:
            part = os.read(self._from_it.fileno(), 1 << 20)
            assert part, "Chromium has gone"
            self._waiting += part
        text, _, self._waiting = self._waiting.partition(b"\0")
        return dict(json.loads(text))


class Tab:
    """A page that somebody looks at."""

    def __init__(
        self,
        chromium: Chromium,
        *,
        width: int = 1280,
        height: int = 900,
        theme: str = "light",
        scripts: bool = True,
    ) -> None:
        self._chromium = chromium
        self._context = chromium.ask("Target.createBrowserContext")["browserContextId"]
        target = chromium.ask("Target.createTarget", url="about:blank", browserContextId=self._context)
        attached = chromium.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                 mobile=width < 600)  # fmt: skip
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        self.ask("Emulation.setScriptExecutionDisabled", value=not scripts)

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Something of the protocol, about this page."""
        return self._chromium.ask(method, self._session, **params)

    def go(self, url: str) -> None:
        """Open an address, and wait until all of it is there."""
        self.ask("Page.navigate", url=url)
        self.loaded()

    def loaded(self) -> None:
        """Wait until the page that is under way is there."""
        self._chromium.wait_for("Page.loadEventFired", self._session)

    def run(self, script: str) -> Any:
        """The value of an expression, awaited."""
        answer = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """A key, as from a keyboard."""
        codes = {"Tab": 9, "Enter": 13}
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        facts = {"key": key, "windowsVirtualKeyCode": codes.get(key, ord(key[0].upper()))}
        self.ask("Input.dispatchKeyEvent", type="keyDown", **facts, **({"text": text} if text else {}))
        self.ask("Input.dispatchKeyEvent", type="keyUp", **facts)

    def complaints(self) -> list[str]:
        """What the console has been told: errors, and what the page's policy has kept from it."""
        told: list[str] = []
        for event in self._chromium.events:
            if event.get("sessionId") != self._session:
                continue
            if event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
                told.append(str(event["params"]["entry"]["text"]))
            elif event["method"] == "Runtime.exceptionThrown":
                told.append(str(event["params"]["exceptionDetails"]))
        return told

    def picture(self, path: Path) -> None:
        """Save what is seen, as PNG."""
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        """Forget it, with its cookies."""
        self._chromium.ask("Target.disposeBrowserContext", browserContextId=self._context)
        self._chromium.events.clear()
