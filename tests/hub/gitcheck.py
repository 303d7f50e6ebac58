"""Looking at the repositories of the Hub with Git itself."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_GIT = shutil.which("git") or "git"


def git(repo: Path, *arguments: str) -> str:
    """Run Git itself in a repository of the Hub and return what it prints."""
    done = subprocess.run([_GIT, "-C", str(repo), *arguments], check=True, capture_output=True, text=True, timeout=60)
    return done.stdout


def assert_sound(repo: Path) -> None:
    """Fail unless Git itself finds the repository whole."""
    done = subprocess.run(
        [_GIT, "-C", str(repo), "fsck", "--strict", "--no-dangling"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
