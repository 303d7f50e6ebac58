"""The scripts that take the documentation's screenshots work in a real browser."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from chromium import find_browser

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.browser
@pytest.mark.timeout(300)
@pytest.mark.skipif(find_browser() is None, reason="there is no Chromium on this machine")
@pytest.mark.parametrize("script", ["screenshot.py", "terminal.py"])
def test_a_screenshot_for_the_documentation_is_taken(script: str, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    command = [sys.executable, str(SCRIPTS / script), str(picture)]
    taken = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert taken.returncode == 0, taken.stdout + taken.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 20_000, "a page without curves or text"
