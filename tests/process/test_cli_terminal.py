"""Output of commands without a progress bar on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import commands

if TYPE_CHECKING:
    from pathlib import Path

    from hub_process import HubProcess


def test_status_shows_destination_and_state(hub: HubProcess, repo_id: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "a.txt").write_text("1")
    assert commands.run(hub, "sync", folder, repo_id, "--allow", "*", home=tmp_path).returncode == 0
    (folder / "b.txt").write_text("12")
    shown = commands.on_terminal(hub, "status", folder, home=tmp_path, NO_COLOR="1")
    assert shown.code == 0
    assert f"{repo_id}, branch main" in shown.text
    assert "pending      1 file, 2 bytes" in shown.text
    assert "\x1b[" not in shown.text


@pytest.mark.timeout(120)
def test_the_demo_shows_its_commits_and_a_table(hub: HubProcess, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the demo trains with scikit-learn")
    shown = commands.on_terminal(hub, "demo", "--seconds", "3", home=tmp_path)
    assert shown.code == 0, shown.text
    assert "1 file, " in shown.text
    lines = shown.text.splitlines()
    head = next(number for number, line in enumerate(lines) if line.split() == ["logged", "on", "the", "Hub", "equal"])
    assert all(line.endswith("yes") for line in lines[head + 1 : head + 4])
