"""The names that this Hub answers to.

A page of another site can give its own name the address of this machine (DNS rebinding). The browser then lets it read
the answers, but sends that name in the `Host` header. An address in the header proves that there was no such name.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hf_summary_writer.localhub.errors import HubError

if TYPE_CHECKING:
    from collections.abc import Iterable


class Hosts:
    """The hosts that may stand in a request: any address, this machine's own names, and those that are given.

    Args:
        allowed: more host names, without a port; `*` allows all.
    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        own = {"localhost", socket.gethostname(), socket.getfqdn()}
        self._allowed = {name.lower() for name in {*own, *allowed}}

    def check(self, header: str | None) -> None:
        """Refuse a request for another host."""
        if header is None or "*" in self._allowed:
            return
        try:
            host = urlsplit(f"//{header}").hostname or ""
        except ValueError:
            host = ""
        if host not in self._allowed and not _is_address(host):
            raise HubError(421, f"This Hub does not answer to the host {host!r}: start it with --allow-host {host}")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
