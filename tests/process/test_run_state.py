"""The state on the Hub of runs whose process ends without `close`."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

import remote
import scripts
from hf_summary_writer.push import RunPhase

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

LOG = """
writer = HFSummaryWriter(repo_id, logdir=logdir, commit_every=60, push_on_sigterm=True)
writer.add_scalar("loss", 1, 1)
"""


@pytest.mark.parametrize(
    ("last", "phase"),
    [
        ("", RunPhase.FINISHED),
        ("1 / 0", RunPhase.FAILED),
        ("raise KeyboardInterrupt", RunPhase.STOPPED),
        (f"os.kill(os.getpid(), {signal.SIGTERM:d}); time.sleep(60)", RunPhase.STOPPED),
        ("try: 1 / 0\nexcept ArithmeticError: pass", RunPhase.FINISHED),
        ("del writer", RunPhase.FINISHED),
        ("os.kill(os.getpid(), signal.SIGKILL)", RunPhase.RUNNING),
    ],
    ids=["end", "exception", "Ctrl-C", "SIGTERM", "handled exception", "dropped", "SIGKILL"],
)
def test_the_state_names_how_the_process_ended(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path, last: str, phase: RunPhase
) -> None:
    first = "writer.scheduler.trigger().result(30)\n" if phase is RunPhase.RUNNING else ""
    scripts.run(LOG + first + last, hub, logdir, repo_id)
    (state,) = remote.states(api, repo_id).values()
    assert state.phase is phase
    assert state.command == f"-c {logdir} {repo_id}"
