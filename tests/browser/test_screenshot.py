"""A run that was pushed and downloaded again looks like a run to TensorBoard, in a real browser."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "screenshot.py"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.browser
@pytest.mark.timeout(300)
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_tensorboard_shows_every_run_and_tag_in_a_browser(tmp_path: Path) -> None:
    picture = tmp_path / "tensorboard.png"
    taken = subprocess.run(
        [sys.executable, str(SCRIPT), str(picture)], capture_output=True, text=True, timeout=280, check=False
    )
    assert taken.returncode == 0, taken.stdout + taken.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 20_000, "a page without curves"
