"""The port and token of a Hub that is started by command, kept in its root for the next start."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from hf_summary_writer.localhub.accounts import User

if TYPE_CHECKING:
    from pathlib import Path

    from hf_summary_writer.localhub.disk import Disk

_NAME = "access.json"
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class Access:
    """The port and the generated token of the last start: 0 and an empty text if there are none."""

    port: int = 0
    token: str = field(default="", repr=False)

    @classmethod
    def read(cls, root: Path) -> Access:
        """Return the port and token of the last start; a missing or damaged file counts as none."""
        try:
            known = json.loads((root / _NAME).read_bytes())
            port, token = known["port"], known["token"]
            if token:
                User.parse(f"local:{token}")
        except (OSError, ValueError, KeyError, TypeError):
            return cls()
        return cls(port, token) if isinstance(port, int) and 0 <= port <= _MAX_PORT else cls()

    def write(self, root: Path, disk: Disk) -> None:
        """Save the port and token for the next start, readable by this user only."""
        disk.write(root / _NAME, json.dumps(asdict(self)).encode())
