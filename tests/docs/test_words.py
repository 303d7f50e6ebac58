"""The pages use the terms that readers search for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
TERMS = {
    r'tab "Metrics"|"Metrics" tab': "Training metrics",
    r"\bagents?\b": "sync daemon",
    r"\banew\b": "again",
    r"\banswers 429\b": "429 Too Many Requests responses",
    r"\bfilms?\b": "video",
    r"\blands in\b": "is uploaded to",
    r"\bname service\b": "DNS",
    r"\bprocessor time\b": "CPU time",
    r"\bwhoever\b": "the process that",
    r"\bwhat is (new|missing)\b": "new data, missing data",
    r"\b(has|have) arrived\b": "is on the Hub",
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_uses_the_terms_of_the_field(page: Path) -> None:
    # Code and messages are quoted as they are.
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = {match[0]: better for term, better in TERMS.items() for match in re.finditer(term, text)}
    assert found == {}, "replace each key by its value"
