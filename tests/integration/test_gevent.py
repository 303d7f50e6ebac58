"""Under gevent, which replaces system threads, logs are written and uploaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import events
import remote
import scripts

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

pytestmark = pytest.mark.peers

PATCH = "import gevent.monkey; gevent.monkey.patch_all()\n"


@pytest.mark.timeout(180)
def test_a_program_patched_by_gevent_logs_uploads_and_exits(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    pytest.importorskip("gevent")
    logdir = tmp_path / "run-1"
    ended = scripts.run(
        """
        writer = HFSummaryWriter(repo_id, logdir=logdir, commit_every=60)
        for step in range(1000):
            writer.add_scalar("loss", step, step)
        writer.flush()
        assert writer.scheduler.trigger().result(60) is not None
        for step in range(1000, 1100):
            writer.add_scalar("loss", step, step)
        """,
        hub, logdir, repo_id, seconds=150, first=PATCH,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert events.steps(logdir, "loss") == list(range(1100))
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run-1")
