"""Simulated hosts: network namespaces, connected by a bridge in one of them."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import time
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

__all__ = ["Network", "why_no_links_can_be_slow", "why_there_are_no_hosts"]

_SECONDS = 20.0
_NET = "10.213.77"


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


@functools.cache
def why_there_are_no_hosts() -> str:
    """Return why linked network namespaces cannot be created here; empty if they can."""
    if shutil.which("ip") is None:
        return "there is no `ip` (Debian: iproute2)"
    try:
        with Network("probe"):
            return ""
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"`ip netns` is not allowed here: {error}"


@functools.cache
def why_no_links_can_be_slow() -> str:
    """Return why links cannot be slowed down here; empty if they can."""
    if shutil.which("tc") is None:
        return "there is no `tc` (Debian: iproute2)"
    try:
        with Network("probe") as network:
            network.slow_down("probe", 1_000_000)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"`tc qdisc` is not allowed here: {error}"
    return ""


class Network:
    """Namespaces with the given names, and one with a bridge that connects them, for the duration of a `with` block.

    Nothing is created outside of the namespaces, and processes that still run in them at the end are killed.

    Args:
        *hosts: The names; their addresses follow that of the bridge.
    """

    def __init__(self, *hosts: str) -> None:
        self._prefix = f"hsw-{uuid.uuid4().hex[:8]}"
        self.hosts = hosts
        self.address = f"{_NET}.1"

    def __enter__(self) -> Self:
        try:
            self._create()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _create(self) -> None:
        for name in ("switch", *self.hosts):
            _run("ip", "netns", "add", self._space(name))
            _run("ip", "-n", self._space(name), "link", "set", "lo", "up")
        switch = self._space("switch")
        _run("ip", "-n", switch, "link", "add", "br0", "type", "bridge")
        _run("ip", "-n", switch, "address", "add", f"{self.address}/24", "dev", "br0")
        _run("ip", "-n", switch, "link", "set", "br0", "up")
        for number, host in enumerate(self.hosts):
            space, port = self._space(host), f"port{number}"
            _run("ip", "-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
            _run("ip", "-n", switch, "link", "set", port, "master", "br0", "up")
            _run("ip", "-n", space, "address", "add", f"{_NET}.{number + 2}/24", "dev", "eth0")
            _run("ip", "-n", space, "link", "set", "eth0", "up")

    def __exit__(self, *_: object) -> None:
        for name in (*self.hosts, "switch"):
            # A namespace may not have been created.
            with contextlib.suppress(OSError):
                self._kill_all(name)
                _run("ip", "netns", "delete", self._space(name))

    def _kill_all(self, name: str) -> None:
        deadline = time.monotonic() + _SECONDS
        while pids := _run("ip", "netns", "pids", self._space(name)).split():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            if time.monotonic() > deadline:
                raise OSError(f"{pids} do not end")
            time.sleep(0.02)

    def _space(self, name: str) -> str:
        return f"{self._prefix}-{name}"

    def on(self, host: str) -> Sequence[str]:
        """Return the command prefix that runs a command on a host or on `"switch"`."""
        return ["ip", "netns", "exec", self._space(host)]

    def cut_off(self, host: str) -> None:
        """Disconnect a host from the switch: packets are lost without an error."""
        _run("ip", "-n", self._space("switch"), "link", "set", f"port{self.hosts.index(host)}", "down")

    def reconnect(self, host: str) -> None:
        """Connect a host to the switch again."""
        _run("ip", "-n", self._space("switch"), "link", "set", f"port{self.hosts.index(host)}", "up")

    def slow_down(self, host: str, bits_per_second: int) -> None:
        """Limit the outgoing bandwidth of a host."""
        shape = ["tbf", "rate", f"{bits_per_second}bit", "burst", "16kb", "latency", "500ms"]
        _run("tc", "-n", self._space(host), "qdisc", "add", "dev", "eth0", "root", *shape)
