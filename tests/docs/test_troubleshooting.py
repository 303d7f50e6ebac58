"""The page "Troubleshooting" lists each warning and error that the library logs, and no others."""

from __future__ import annotations

import re
from pathlib import Path

from messages import messages

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"


def listed() -> set[str]:
    return set(re.findall(r"^\| `(.+?)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))


def test_the_troubleshooting_page_lists_every_warning() -> None:
    missing = [f"{each.place}: {each.text}" for each in messages() if each.text.replace("`", "") not in listed()]
    assert not missing, "add to docs/troubleshooting.md (`python scripts/messages.py` lists all):\n" + "\n".join(
        missing
    )


def test_the_troubleshooting_page_lists_no_removed_message() -> None:
    gone = listed() - {each.text.replace("`", "") for each in messages()}
    assert not gone, "not in the source any more: remove from docs/troubleshooting.md"
