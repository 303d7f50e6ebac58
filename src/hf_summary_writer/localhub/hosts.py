"""Protection against DNS rebinding: the host names that the server responds to.

A malicious web page can point its own host name at the address of this machine. The browser then lets the page read the
responses, but sends that name in the `Host` header. A header with an IP address cannot come from such a page.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hf_summary_writer.localhub.errors import HubError

if TYPE_CHECKING:
    from collections.abc import Iterable


class Hosts:
    """The allowed `Host` headers: IP addresses, the names of this machine, and additional names.

    Args:
        allowed: additional host names, without a port; `*` allows all.
    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._allowed = {name.lower() for name in {"localhost", socket.gethostname(), *allowed}}
        self._full_name: str | None = None

    async def check(self, header: str | None) -> None:
        """Reject a request for another host."""
        if header is None or "*" in self._allowed:
            return
        try:
            host = urlsplit(f"//{header}").hostname or ""
        except ValueError:
            host = ""
        if host not in self._allowed and not _is_address(host) and host != await self._own_full_name():
            raise HubError(421, f"The host {host!r} is not allowed: start the server with --allow-host {host}")

    async def _own_full_name(self) -> str:
        # Not at the start: without a network, the name server may take 10 seconds to fail.
        if self._full_name is None:
            self._full_name = (await asyncio.to_thread(socket.getfqdn)).lower()
        return self._full_name


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
