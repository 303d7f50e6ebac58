"""Run our commands in a process of their own, as users do, or in the test's process."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

from click.testing import CliRunner
from huggingface_hub import constants

import scripts
from hf_summary_writer.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    from hub_process import HasEndpoint

__all__ = ["Nowhere", "Shown", "command", "invoke", "objects", "on_terminal", "pasted", "printed", "run", "start"]

SECONDS = 60.0


class Nowhere:
    """A Hub that does not answer."""

    endpoint = "http://127.0.0.1:9"
    token = "hf_a_token_that_must_not_be_shown"


def command(*arguments: object) -> list[str]:
    """Return the argument list that runs one of our commands."""
    return [sys.executable, "-m", "hf_summary_writer", *map(str, arguments)]


def run(hub: HasEndpoint, *arguments: object, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with the client's home in `home`."""
    return subprocess.run(
        command(*arguments),
        env={**scripts.environment(hub, home), **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def invoke(hub: HasEndpoint, *arguments: object, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, without the imports that take most of a short command's time."""
    logger = logging.getLogger("hf_summary_writer")
    handlers, propagates = list(logger.handlers), logger.propagate
    client_constants = mock.patch.multiple(
        constants,
        ENDPOINT=hub.endpoint,
        HF_HOME=str(home / "hf-home"),
        HUGGINGFACE_CO_URL_TEMPLATE=hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
    )
    words = [*map(str, arguments)]
    try:
        with client_constants, mock.patch.dict(os.environ, {**scripts.environment(hub, home), **variables}):
            result = CliRunner().invoke(main, words, prog_name="hf-summary-writer")
    finally:
        logger.handlers[:], logger.propagate = handlers, propagates
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return subprocess.CompletedProcess(words, result.exit_code, result.stdout, result.stderr)


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


class Shown(NamedTuple):
    """A command's terminal output, escape codes included, and its exit code."""

    text: str
    code: int


def on_terminal(hub: HasEndpoint, *arguments: object, home: Path, until: str = "", **variables: str) -> Shown:
    """Run a command on a terminal to its end, or send it Ctrl-C once its output contains `until`."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    environment = {**scripts.environment(hub, home), "TERM": "xterm"}
    del environment["HF_HUB_DISABLE_PROGRESS_BARS"]
    with subprocess.Popen(
        command(*arguments),
        env={**environment, **variables},
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
    ) as process:
        os.close(its)
        written = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while piece := os.read(ours, 65536):
                written += piece
                if until and until in written.decode():
                    os.killpg(process.pid, signal.SIGINT)
                    until = ""
        code = process.wait(SECONDS)
    os.close(ours)
    return Shown(written.decode(), code)


def printed(said: str) -> str:
    """Return the last `sync` command that a script printed."""
    return str(re.findall(r": ((?:[A-Z_]+=\S+ )*hf-summary-writer sync .*)", said)[-1])


def pasted(line: str, hub: HasEndpoint, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a printed command line unchanged in the shell of a user of `hub`."""
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
    """Return the JSON objects of a command's output, one per line."""
    return [json.loads(line) for line in text.splitlines()]
