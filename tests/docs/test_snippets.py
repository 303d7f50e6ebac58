"""What README and docs show works: each page is a session, whose blocks run one after the other in one folder.

Blocks of `python` and `sh` are run; what needs an account, a cluster or a terminal stands in blocks of other languages.
A block with a title is a file of that name. A comment before a block may name the exit code that it is to end with.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import scripts

if TYPE_CHECKING:
    from hub_process import HubProcess

ROOT = Path(__file__).parents[2]
# Needs the frameworks it names, and has tests of its own.
ELSEWHERE = ROOT / "docs" / "integrations.md"
PAGES = sorted({ROOT / "README.md", *(ROOT / "docs").rglob("*.md")} - {ELSEWHERE})
FENCE = re.compile(
    r"(?:^<!-- exit code: (?P<exit>\d+) -->\n)?"
    r"^```(?P<language>python|sh)(?: title=\"(?P<title>[^\"]*)\")?\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
# The gate runs these, each in a checkout of its own.
CHECKED = re.compile(r"^<!-- checked -->\n```.*?^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Snippet:
    language: str
    code: str
    title: str
    exit_code: int


def snippets(page: Path) -> list[Snippet]:
    return [
        Snippet(match["language"], match["code"], match["title"] or "", int(match["exit"] or 0))
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
    for number, snippet in enumerate(snippets(page)):
        file = folder / (snippet.title or f"snippet-{number}")
        file.write_text(snippet.code, encoding="utf-8")
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
        assert ended.returncode == snippet.exit_code, f"{snippet.code}\n{ended.stdout}\n{ended.stderr}"
        assert "WARNING" not in ended.stderr


def test_the_pages_hold_snippets() -> None:
    assert sum(len(snippets(page)) for page in PAGES) > 15
