"""D18: whichever system call of a run that logs and pushes fails once, nothing is lost and nothing false is said."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import commands
import events
import remote
import scripts

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

pytestmark = [
    pytest.mark.faults("D18"),
    pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler"),
]

KINDS = ["open", "write", "read", "fsync", "rename", "fcntl", "stat", "list", "mkdir", "unlink"]
STEPS = 20

# One process goes through all numbers of a kind of call, until there is no call of that number any more.
RUNS = """
import ctypes, json, itertools
kind, error, step_by = sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
calls = ctypes.CDLL(None)
said = []
class Said(logging.Handler):
    def emit(self, record):
        if record.name.startswith("hf_summary_writer") and record.levelno >= logging.WARNING:
            said.append(record.getMessage())
logging.getLogger().handlers = [Said()]
for number in itertools.count(1, step_by):
    said.clear()
    run = f"{logdir}/{kind}-{number}"
    calls.failing_calls_begin(run.encode(), kind.encode(), number, error)
    writer = HFSummaryWriter(repo_id, logdir=run, commit_every=60, segment_bytes=600)
    for step in range(%(steps)d):
        writer.add_scalar("loss", step, step)
        if step == 10:
            writer.add_hparams({"lr": 0.1}, {"accuracy": 0.5}, name="trial")
            writer.scheduler.trigger().exception(30)
    writer.close()
    count = calls.failing_calls_end()
    status = writer.scheduler.status()
    print(json.dumps({
        "run": f"{kind}-{number}", "calls": count, "said": said, "dropped": writer.dropped_events,
        "pending": status.pending.missing, "phase": status.phase.name,
    }), flush=True)
    if count <= 0:
        break
""" % {"steps": STEPS}


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build the library that fails calls, and return its path."""
    source = os.path.join(os.path.dirname(__file__), "failing_calls.c")
    built = str(tmp_path_factory.mktemp("library") / "failing_calls.so")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", built, source, "-ldl"], check=True)
    return built


@pytest.mark.parametrize("kind", KINDS)
def test_no_single_failing_call(
    kind: str, library: str, hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logdir = tmp_path / "runs"
    logdir.mkdir()
    step_by = int(os.environ.get("STEP_BY", "1"))
    with monkeypatch.context() as patch:
        patch.setenv("LD_PRELOAD", library)
        ended = scripts.start(RUNS.replace("sys.argv[3]", repr(kind)).replace("sys.argv[4]", str(errno.EIO)).replace("sys.argv[5]", str(step_by)), hub, logdir, repo_id)
        out, err = ended.communicate(timeout=600)
    assert ended.returncode == 0, err
    outcomes = [json.loads(line) for line in out.splitlines()]
    there = remote.files(api, repo_id)
    bad = []
    for outcome in outcomes:
        run = logdir / outcome["run"]
        here = remote.under(run, f"tensorboard/{outcome['run']}")
        mine = {k: v for k, v in there.items() if k.startswith(f"tensorboard/{outcome['run']}/")}
        steps = sorted(events.steps(run, "loss", growing=True))
        differs = mine != here
        if steps != list(range(STEPS)) or (differs and not any("hf-summary-writer sync" in s for s in outcome["said"])):
            bad.append((outcome, "steps %d" % len(steps), {k: (len(v), len(mine.get(k, b""))) for k, v in here.items() if mine.get(k) != v}, sorted(set(mine) - set(here))))
    print(len(outcomes), "cycles")
    for b in bad: print("BAD", b)
    assert not bad
