"""`hf-summary-writer view`: TensorBoard shows what is on the Hub, and what comes there later."""

from __future__ import annotations

import json
import re
import signal
import time
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING

import commands
import remote
from hf_summary_writer import HFSummaryWriter
from hf_summary_writer.cli.view import Changed, update

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

SECONDS = 100.0


def steps(board: str, run: str, tag: str) -> list[int]:
    """Return the steps that a TensorBoard shows."""
    query = urllib.parse.urlencode({"run": run, "tag": tag})
    try:
        with urllib.request.urlopen(f"{board}data/plugin/scalars/scalars?{query}", timeout=10) as answer:  # noqa: S310
            return [step for _, step, _ in json.load(answer)]
    except OSError:
        return []


def test_it_shows_a_repo_and_what_is_pushed_later(hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path) -> None:
    with HFSummaryWriter(repo_id, logdir=tmp_path / "first", hf_api=api, repo_private=True, commit_every=60) as writer:
        for step in range(3):
            writer.add_scalar("loss", 1.0, step)
        writer.scheduler.trigger().result(SECONDS)
        options = ["--port", 0, "--refresh", 1, "--folder", tmp_path / "view"]
        with commands.start(hub, "view", repo_id, *options, home=tmp_path) as process:
            assert process.stderr is not None
            board = next(found[0] for line in process.stderr if (found := re.search(r"http://\S+/", line)))
            deadline = time.monotonic() + SECONDS
            for wanted in (3, 5):
                for step in range(wanted):
                    if wanted == 5 and step >= 3:
                        writer.add_scalar("loss", 1.0, step)
                writer.scheduler.trigger().result(SECONDS)
                while (shown := steps(board, "tensorboard/first", "loss")) != list(range(wanted)):
                    assert time.monotonic() < deadline, shown
                    time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
    assert process.returncode == 0
    shown_files = {f"shown/{path}": content for path, content in remote.files(api, repo_id).items()}
    assert set(shown_files) == {
        path.relative_to(tmp_path / "view").as_posix()
        for path in (tmp_path / "view" / "shown").rglob("*")
        if path.is_file()
    }


def test_a_repo_that_is_not_there_is_an_error_in_one_line(hub: HubProcess, repo_id: str, tmp_path: Path) -> None:
    asked = commands.run(hub, "view", repo_id, home=tmp_path)
    assert asked.returncode == 1
    assert repo_id in asked.stderr
    assert "Traceback" not in asked.stderr


def test_a_file_that_grew_is_appended_to_and_one_that_changed_is_written_anew(tmp_path: Path) -> None:
    source, shown = tmp_path / "source", tmp_path / "shown"
    (source / "a").mkdir(parents=True)
    (source / "a" / "f").write_bytes(b"x" * 10_000)
    assert update(source, shown) == Changed(1, 10_000)
    inode = (shown / "a" / "f").stat().st_ino
    (source / "a" / "f").write_bytes(b"x" * 10_000 + b"new")
    assert update(source, shown) == Changed(1, 3)
    assert (shown / "a" / "f").stat().st_ino == inode
    assert update(source, shown) == Changed(0, 0)
    (source / "a" / "f").write_bytes(b"y" * 20_000)
    assert update(source, shown) == Changed(1, 20_000)
    assert (shown / "a" / "f").read_bytes() == b"y" * 20_000
