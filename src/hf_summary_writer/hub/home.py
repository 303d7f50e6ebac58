"""The folders of this machine for files that all processes of a user share."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from huggingface_hub import constants


def client_home() -> Path:
    """Return the folder in which `huggingface_hub` keeps the user's files on this machine (`HF_HOME`)."""
    return Path(constants.HF_HOME)


def temporary_home(name: str) -> Path | None:
    """Return a folder for temporary files, for where `client_home` is not writable; `None` if there is none.

    It is the same for all processes of the user, and no other user can write to it.
    """
    if not hasattr(os, "geteuid"):  # not on this system
        return None
    try:
        folder = Path(tempfile.gettempdir()) / f"hf-summary-writer-{name}-{os.geteuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        return None  # it may belong to another user
    return folder
