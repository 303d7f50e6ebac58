"""The code in README and docs works: each page is a session whose blocks run in order, in one folder.

Blocks of `python` and `sh` are run; blocks of other languages need an account, a cluster or a terminal. A block with a
title is a file of that name, which is run here unless a later block does it. Variables that a block exports are set in
later blocks. A comment before a block can give its expected exit code, or keep it running in the background until the
page ends.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import scripts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hub_process import HubProcess

ROOT = Path(__file__).parents[2]
# Needs the frameworks that it names, and has separate tests.
ELSEWHERE = ROOT / "docs" / "integrations.md"
PAGES = sorted({ROOT / "README.md", *(ROOT / "docs").rglob("*.md")} - {ELSEWHERE})
FENCE = re.compile(
    r"(?:^<!-- (?:exit code: (?P<exit>\d+)|(?P<background>background)) -->\n)?"
    r"^```(?P<language>python|sh)(?: title=\"(?P<title>[^\"]*)\")?\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
# The port of the local Hub on the pages, which is replaced by a free one.
PORT = "8080"
# CI runs these, each in a separate checkout.
CHECKED = re.compile(r"^<!-- checked -->\n```.*?^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Snippet:
    language: str
    code: str
    title: str
    exit_code: int
    background: bool


def snippets(page: Path) -> list[Snippet]:
    return [
        Snippet(
            match["language"],
            match["code"],
            match["title"] or "",
            int(match["exit"] or 0),
            match["background"] is not None,
        )
        for match in FENCE.finditer(CHECKED.sub("", page.read_text(encoding="utf-8")))
    ]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "page", [page for page in PAGES if snippets(page)], ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_the_snippets_of_a_page_work(hub: HubProcess, tmp_path: Path, page: Path) -> None:
    bin_folder = str(Path(sys.executable).parent)
    environment = scripts.environment(hub, tmp_path)
    environment["PATH"] = os.pathsep.join([bin_folder, environment["PATH"]])
    folder = tmp_path / "session"
    folder.mkdir()
    port = str(free_port())
    session = snippets(page)
    with contextlib.ExitStack() as background:
        for number, snippet in enumerate(session):
            code = snippet.code.replace(PORT, port)
            file = folder / (snippet.title or f"snippet-{number}")
            file.write_text(code, encoding="utf-8")
            if snippet.background:
                background.enter_context(server(["bash", "-c", f"exec {code}"], folder, environment, int(port)))
                continue
            if snippet.title and any(snippet.title in later.code for later in session[number + 1 :]):
                continue
            exports = tmp_path / "exports"
            if snippet.language == "sh":
                file.write_text(f"{code}env -0 > {shlex.quote(str(exports))}\n", encoding="utf-8")
            interpreter = [sys.executable] if snippet.language == "python" else ["bash", "-euo", "pipefail"]
            ended = subprocess.run(
                [*interpreter, str(file)],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=100,
                check=False,
            )
            assert ended.returncode == snippet.exit_code, f"{code}\n{ended.stdout}\n{ended.stderr}"
            assert "WARNING" not in ended.stderr
            if exports.exists():
                lines = exports.read_text(encoding="utf-8").split("\0")
                exports.unlink()  # it holds the token
                environment = dict(line.partition("=")[::2] for line in lines if line)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def server(command: list[str], folder: Path, environment: dict[str, str], port: int) -> Iterator[None]:
    """Run a command that serves on a port, and wait until it answers."""
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            while True:
                assert process.poll() is None, "the server exited"
                with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.05)
            yield
        finally:
            process.terminate()


def test_the_pages_hold_snippets() -> None:
    assert sum(len(snippets(page)) for page in PAGES) > 15
