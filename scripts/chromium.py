"""Headless Chromium, for screenshots and tests of pages."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 120
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1280,1000",
)


def find_browser() -> str | None:
    """Return the path of a Chromium, if there is one."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


class Browser:
    """A page of a headless Chromium, driven by its DevTools protocol over a pair of pipes.

    Args:
        program: The Chromium.
        seconds: Time limit, after which the process is killed.
    """

    def __init__(self, program: str, seconds: float = SECONDS) -> None:
        """Start Chromium with an empty page."""
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        # Helper processes may still write after the browser has exited.
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        command = [program, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={self._profile.name}", "about:blank"]
        # The protocol takes descriptors 3 and 4, which the shell puts in place.
        redirect = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", redirect, "bash", *command],
            pass_fds=(to_browser, from_browser),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._late = threading.Timer(seconds, self._kill)
        self._late.start()
        self._answers = os.fdopen(self._read, "rb")
        self._rest = b""
        self._id = 0
        self._session: dict[str, str] = {}
        pages = self.call("Target.getTargets")["targetInfos"]
        target = next(page["targetId"] for page in pages if page["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._late.cancel()
        os.close(self._write)
        self._kill()
        self._process.wait()
        self._answers.close()
        self._profile.cleanup()

    def _kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._id += 1
        message = {"id": self._id, "method": method, "params": parameters, **self._session}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                chunk = os.read(self._answers.fileno(), 2**16)
                if not chunk:
                    sys.exit("The browser ended, or took too long.")
                self._rest += chunk
            line, _, self._rest = self._rest.partition(b"\0")
            answer = json.loads(line)
            if answer.get("id") == self._id:
                if "error" in answer:
                    sys.exit(f"{method}: {answer['error']}")
                return dict(answer["result"])

    def wait_for(self, script: str) -> None:
        """Wait until a script in the page returns true."""
        while not self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value"):
            time.sleep(0.2)
