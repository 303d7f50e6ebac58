"""Training scripts as users run them: in a process of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from hub_process import HasEndpoint

__all__ = ["environment", "run", "start"]

SECONDS = 60.0
GRACE = 5.0

_PREAMBLE = """
import logging, os, signal, sys, threading, time
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
from hf_summary_writer import CommitScheduler, HFSummaryWriter
logdir, repo_id = sys.argv[1:3]
"""


def environment(hub: HasEndpoint, folder: Path) -> dict[str, str]:
    """Return the environment of a user of `hub` with the client's home in `folder`."""
    return {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HOME": str(folder / "hf-home")}


def start(
    body: str, hub: HasEndpoint, logdir: Path, repo_id: str, *options: str, first: str = ""
) -> subprocess.Popen[str]:
    """Start a script with `logdir`, `repo_id` and our classes defined; the lines in `first` run before the imports."""
    return subprocess.Popen(
        [sys.executable, "-X", "dev", *options, "-c", first + _PREAMBLE + textwrap.dedent(body), str(logdir), repo_id],
        env=environment(hub, logdir.parent),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(
    body: str, hub: HasEndpoint, logdir: Path, repo_id: str, *options: str, seconds: float = SECONDS, first: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a script to its end, for at most `seconds`."""
    with start(body, hub, logdir, repo_id, *options, first=first) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # "-X dev" shows where each thread is
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            # Its children too: they hold the same pipes.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            raise AssertionError(f"the script did not end:\n{out}\n{err}") from None
    assert_no_token(hub, logdir, out + err)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def assert_no_token(hub: HasEndpoint, logdir: Path, said: str) -> None:
    """Check that neither a script's output nor a file in its folder contains the token."""
    assert hub.token not in said
    for path in logdir.rglob("*"):
        assert not path.is_file() or hub.token.encode() not in path.read_bytes(), path
