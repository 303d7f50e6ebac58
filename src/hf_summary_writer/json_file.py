"""Small files of JSON that other processes read at any time: they find the one before or the one after, whole.

None of them is fsynced: what is lost with such a file is known to who wrote it, or of no use after a loss of power.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read", "write"]


def read(path: Path, most_bytes: int) -> Any:
    """Return what the file at `path` holds, of which no more than `most_bytes` are read.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no JSON, or RecursionError if it nests too far.
    """
    with path.open("rb") as file:
        return json.loads(file.read(most_bytes))


def write(path: Path, value: Any) -> None:
    """Put `value` into the file at `path`, readable by this user alone; makes its folder if need be.

    Raises:
        OSError: If it cannot be written; the file is then what it was.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(value, file, separators=(",", ":"))
    temporary.replace(path)
