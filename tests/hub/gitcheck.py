"""Inspect the local Hub's repositories with Git."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_GIT = shutil.which("git") or "git"


def git(repo: Path, *arguments: str) -> str:
    """Run Git in a repository of the Hub and return its output."""
    done = subprocess.run([_GIT, "-C", str(repo), *arguments], check=True, capture_output=True, text=True, timeout=60)
    return done.stdout


def assert_sound(repo: Path) -> None:
    """Fail unless `git fsck` finds no error in the repository."""
    done = subprocess.run(
        [_GIT, "-C", str(repo), "fsck", "--strict", "--no-dangling"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
