"""Real experiment trackers that hook into tensorboardX record our writer's scalars."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.peers

WANDB = """
    import os, sys
    import wandb
    run = wandb.init(project="p", sync_tensorboard=True)
    if sys.argv[1] == "theirs":
        from tensorboardX import SummaryWriter
    else:
        from hf_summary_writer.events import EventWriter as SummaryWriter
    with SummaryWriter("runs") as writer:
        for step in range(20):
            writer.add_scalar("loss", 1 / (step + 1), step)
    run.finish()
"""


@pytest.mark.timeout(180)
@pytest.mark.parametrize("which", ["theirs", "ours"])
def test_wandb_that_syncs_tensorboard_records_the_scalars(which: str, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(WANDB))
    environment = {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true", "HOME": str(tmp_path)}
    subprocess.run(
        [sys.executable, str(script), which],
        cwd=tmp_path,
        env=environment,
        timeout=150,
        check=True,
    )
    [record] = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    assert record.read_bytes().count(b"loss") >= 20
