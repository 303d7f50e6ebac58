"""Our commands as users run them: in a process of their own."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import scripts

if TYPE_CHECKING:
    from pathlib import Path

    from hub_process import HasEndpoint

__all__ = ["Nowhere", "command", "objects", "pasted", "printed", "run", "start"]

SECONDS = 60.0


class Nowhere:
    """A Hub that does not answer."""

    endpoint = "http://127.0.0.1:9"
    token = "hf_a_token_that_must_not_be_shown"


def command(*arguments: object) -> list[str]:
    """Return the words that run one of our commands."""
    return [sys.executable, "-m", "hf_summary_writer", *map(str, arguments)]


def run(hub: HasEndpoint, *arguments: object, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with `home` as the place for the client's files."""
    return subprocess.run(
        command(*arguments),
        env={**scripts.environment(hub, home), **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def start(hub: HasEndpoint, *arguments: object, home: Path, **variables: str) -> subprocess.Popen[str]:
    """Start a command in a session of its own, as a batch system does, and return its process."""
    return subprocess.Popen(
        command(*arguments),
        env={**scripts.environment(hub, home), **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def printed(said: str) -> str:
    """Return the command that a script was told to send the rest with."""
    return str(re.findall(r": ((?:HF_ENDPOINT=\S+ )?hf-summary-writer sync .*)", said)[-1])


def pasted(line: str, hub: HasEndpoint, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a line as it stands in the shell of a user of `hub`."""
    program = home / "bin" / "hf-summary-writer"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec {shlex.join(command())} "$@"\n')
    program.chmod(0o755)
    return subprocess.run(
        ["/bin/sh", "-c", line],
        env={**scripts.environment(hub, home), "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def objects(text: str) -> list[dict[str, Any]]:
    """Return the JSON objects of a command's output, one a line."""
    return [json.loads(line) for line in text.splitlines()]
