"""Commands show a progress bar on a terminal and plain lines elsewhere."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pytest

import commands

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

MEGABYTES = 64
BAR = re.compile(r"(\d+)%\|[^|]*\| \S+/\S+ \[[^]]*?(\d+) of (\d+) files?\]")


@pytest.fixture
def logdir(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "small.bin").write_bytes(b"0123456789")
    with (folder / "large.bin").open("wb") as file:
        for number in range(MEGABYTES * 1000):
            file.write(number.to_bytes(4, "big") * 250)
    return folder


def steps(text: str) -> list[tuple[int, ...]]:
    """Return the percentage, files done and total files of every update of a bar."""
    return [(int(percent), int(done), int(all_)) for percent, done, all_ in BAR.findall(text)]


def test_sync_shows_bytes_and_files(hub: HubProcess, repo_id: str, logdir: Path) -> None:
    shown = commands.on_terminal(hub, "sync", logdir, repo_id, "--allow", "*", home=logdir.parent)
    assert shown.code == 0, shown.text
    seen = steps(shown.text)
    assert seen[0] == (0, 0, 2)
    assert any(0 < percent < 100 for percent, _, _ in seen), "the bar moves during a large file"
    assert "64.0M" in shown.text
    last = shown.text.rstrip().splitlines()[-1]
    assert "is in" in last
    assert BAR.search(last.rpartition("\r")[2]) is None, "the bar is cleared"


def test_run_shows_the_progress_of_its_last_push(hub: HubProcess, repo_id: str, tmp_path: Path, logdir: Path) -> None:
    copy = f"import shutil; shutil.copytree({str(logdir)!r}, {str(tmp_path / 'runs' / 'a')!r})"
    options = ["--logdir", tmp_path / "runs", "--allow", "*", "--every", 60]
    command = ["--", sys.executable, "-c", copy]
    shown = commands.on_terminal(hub, "run", repo_id, *options, *command, home=tmp_path)
    assert shown.code == 0, shown.text
    assert (0, 0, 2) in steps(shown.text)


def test_view_shows_the_progress_of_its_download(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path, logdir: Path
) -> None:
    api.create_repo(repo_id)
    api.upload_file(path_or_fileobj=logdir / "large.bin", path_in_repo="a/x.tfevents.1", repo_id=repo_id)
    path = str(board_that_ends(tmp_path))
    shown = commands.on_terminal(hub, "view", repo_id, home=tmp_path, PYTHONPATH=path)
    assert (100, 1, 1) in steps(shown.text), shown.text
    assert "new: 1 file, 64.0 MB" in shown.text


def board_that_ends(folder: Path) -> Path:
    """Return a folder with a `tensorboard` package that exits at once."""
    package = folder / "path" / "tensorboard"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "main.py").write_text("")
    return package.parent


@pytest.mark.parametrize("variables", [{"HF_HUB_DISABLE_PROGRESS_BARS": "1"}, {"TERM": "dumb"}], ids=str)
def test_bars_can_be_turned_off(hub: HubProcess, repo_id: str, logdir: Path, variables: dict[str, str]) -> None:
    shown = commands.on_terminal(hub, "sync", logdir, repo_id, "--allow", "*", home=logdir.parent, **variables)
    assert shown.code == 0, shown.text
    assert "\r\n" in shown.text
    assert "%" not in shown.text


def test_with_no_color_a_terminal_gets_no_color_codes(hub: HubProcess, repo_id: str, logdir: Path) -> None:
    variables = {"NO_COLOR": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    shown = commands.on_terminal(hub, "sync", logdir, repo_id, "--allow", "*", home=logdir.parent, **variables)
    assert not re.search(r"\x1b\[3\dm", shown.text)


def test_a_pipe_gets_plain_lines(hub: HubProcess, repo_id: str, logdir: Path) -> None:
    done = commands.run(hub, "sync", logdir, repo_id, "--allow", "*", home=logdir.parent)
    assert done.returncode == 0
    assert "\r" not in done.stdout + done.stderr
    assert "%" not in done.stdout + done.stderr
