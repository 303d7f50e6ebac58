"""The program works as an extension of the `hf` command: `hf summary-writer …`."""

from __future__ import annotations

import shlex
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import commands
import remote
import scripts

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from hub_process import HubProcess


def test_hf_passes_arguments_and_returns_the_exit_code(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    extensions = pytest.importorskip("huggingface_hub.cli.extensions")
    hf = Path(sys.executable).with_name("hf")
    # The layout that `hf extensions install` makes; the command itself needs GitHub.
    folder = tmp_path / extensions.EXTENSIONS_ROOT.relative_to("~") / "hf-summary-writer"
    program = folder / "hf-summary-writer"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {shlex.join(commands.command())} "$@"\n')
    program.chmod(0o755)
    extensions.ExtensionManifest(
        owner="owner",
        repo="hf-summary-writer",
        repo_id="owner/hf-summary-writer",
        short_name="summary-writer",
        executable_path=str(program),
        type="binary",
        installed_at=datetime.now(timezone.utc),
    ).save(folder)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a.txt").write_text("1")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(hf), "summary-writer", *words],
            cwd=tmp_path,
            env={**scripts.environment(hub, tmp_path), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    sent = run("sync", "run", repo_id, "--include", "*.txt")
    assert sent.returncode == 0, sent.stderr
    assert remote.files(api, repo_id) == {"tensorboard/run/a.txt": b"1"}
    assert run("sync", "run", repo_id, "--exit-code").returncode == 2
