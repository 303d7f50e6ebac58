"""From a logdir with many other files only matching files are uploaded, and never credentials."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import remote
import scripts
from aftermath import assert_sound

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

SECRETS = [".git/config", ".env", "app/.env.local", ".ssh/id_rsa", ".netrc", ".cache/huggingface/token"]

# Root may chroot. A push from another folder goes first, so that all modules are imported before.
ENTER = {
    "the home folder": "os.environ['HOME'] = logdir\n",
    "the working folder": "os.chdir(logdir); logdir = '.'\n",
    "the root": """
import huggingface_hub.constants
huggingface_hub.constants.HF_HUB_DISABLE_XET = True  # Xet's client looks for the system's certificates
with HFSummaryWriter(repo_id + "-before", logdir=logdir + "-before", commit_every=60) as writer:
    writer.add_scalar("loss", 1, 1)
os.chroot(logdir); os.chdir('/'); logdir = '/'
""",
}


@pytest.mark.faults("S5")
@pytest.mark.parametrize("where", ENTER)
@pytest.mark.parametrize("patterns", ["*.tfevents.*", None])
def test_only_matching_files_of_a_wide_folder_are_uploaded(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path, where: str, patterns: str | None
) -> None:
    if where == "the root" and (not hasattr(os, "geteuid") or os.geteuid() != 0):
        pytest.skip("only root may change its root")
    for name in [*SECRETS, "thesis.txt"]:
        (logdir / name).parent.mkdir(parents=True, exist_ok=True)
        (logdir / name).write_text("secret")
    (logdir / "tmp").mkdir()
    ended = scripts.run(
        ENTER[where]
        + f"""
with HFSummaryWriter(
    repo_id, logdir=logdir, commit_every=60, repo_allow_patterns={patterns!r}, path_in_repo="x"
) as writer:
    writer.add_scalar("loss", 1, 1)
""",
        hub, logdir, repo_id,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "WARNING" not in ended.stderr, ended.stderr
    names = {path.rpartition("/")[2] for path in remote.files(api, repo_id)}
    events = {name for name in names if "tfevents" in name}
    assert len(events) == 1
    assert names - events <= ({"thesis.txt"} if patterns is None else set())
    assert not names & {path.rpartition("/")[2] for path in SECRETS}
    assert_sound(logdir)
