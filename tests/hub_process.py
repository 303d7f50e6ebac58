"""A local Hub in a process of its own, as a user starts it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any, Protocol

from hf_summary_writer.localhub import Count, LoggedRequest, Stats

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from typing_extensions import Self


class HasEndpoint(Protocol):
    """A running Hub, in this or another process, or a proxy in front of one."""

    @property
    def endpoint(self) -> str: ...

    @property
    def token(self) -> str: ...


class HubProcess:
    """A local Hub in a process of its own; it serves inside a `with` block.

    It has those methods of `LocalHub` that tests use, and can be killed.

    Args:
        root: The folder for its repos.
        *arguments: Its options.
        launcher: A command prefix, such as one that runs a command on another host.
        any_namespace: Whether its user may use every namespace.
    """

    def __init__(self, root: Path, *arguments: str, launcher: Sequence[str] = (), any_namespace: bool = True) -> None:
        self.root = root
        if any_namespace:
            arguments = (*arguments, "--any-namespace")
        command = [sys.executable, "-m", "hf_summary_writer.localhub", "--root", str(root), *arguments]
        self._command = [*launcher, *command]
        self.process: subprocess.Popen[str] | None = None
        self.endpoint = self.token = ""

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        if self.process.stdout is None:
            raise RuntimeError("no pipe")
        line = self.process.stdout.readline().split()
        if not line:
            self.process.stdout.close()
            raise RuntimeError(f"the local Hub ended with {self.process.wait()}")
        self.endpoint, self.token = (part.partition("=")[2] for part in line)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def kill(self) -> None:
        """Kill the process, as a crash would."""
        if self.process:
            self.process.kill()
            self.stop()

    def stop(self) -> int | None:
        """Stop the process with SIGTERM, as a user would, and return its exit code."""
        process, self.process = self.process, None
        if process is None or process.stdout is None:
            return None
        process.terminate()
        code = process.wait(timeout=30)
        process.stdout.close()
        return code

    def _call(self, method: str, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(self.endpoint + path, method=method, headers=headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.loads(answer.read() or "null")

    @property
    def stats(self) -> Stats:
        return Stats(**{kind: Count(**count) for kind, count in self._call("GET", "/localhub/stats").items()})

    @property
    def requests(self) -> list[LoggedRequest]:
        return [LoggedRequest(**each) for each in self._call("GET", "/localhub/requests")]

    def reset_stats(self) -> None:
        self._call("DELETE", "/localhub/stats")

    def end_streams(self, end: str = "reconnect") -> None:
        self._call("DELETE", f"/localhub/streams?reset={'true' if end == 'reset' else 'false'}")
