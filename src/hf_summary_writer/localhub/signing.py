"""Grants: signed strings that allow their bearer one action for a limited time, checked without stored state."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from typing import TYPE_CHECKING

from hf_summary_writer.localhub.errors import HubError

if TYPE_CHECKING:
    from pathlib import Path

    from hf_summary_writer.localhub.disk import Disk

LIFETIME_SECONDS = 3600
_TIME = re.compile(r"[0-9]{1,12}")


class Signer:
    """Issues and checks grants with a secret on disk, so that they stay valid after a restart of the server."""

    def __init__(self, path: Path, disk: Disk) -> None:
        if not path.exists():
            disk.write(path, secrets.token_bytes(32))
        self._secret = path.read_bytes()

    def grant(self, purpose: str, subject: str) -> tuple[str, int]:
        """Return a grant for `purpose` on `subject`, and the Unix time of its expiry."""
        expires = int(time.time()) + LIFETIME_SECONDS
        return f"{expires}-{self._signature(purpose, subject, expires)}", expires

    def check(self, grant: str, purpose: str, subject: str) -> None:
        """Reject a grant that is for another action or has expired."""
        expires, _, signature = grant.partition("-")
        if not _TIME.fullmatch(expires) or not hmac.compare_digest(
            signature.encode(), self._signature(purpose, subject, int(expires)).encode()
        ):
            raise HubError(403, "The signature of this URL or token is wrong.")
        if int(expires) < time.time():
            raise HubError(403, "This URL or token has expired: ask for a new one.")

    def _signature(self, purpose: str, subject: str, expires: int) -> str:
        message = f"{purpose}\n{subject}\n{expires}".encode()
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()
