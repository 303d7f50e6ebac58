"""D18: if any system call of a run fails once, no event is lost and no false success reported."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import commands
import events
import remote
import scripts

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from hub_process import HubProcess

COMPILER = shutil.which("cc") or ""

pytestmark = [
    pytest.mark.faults("D18"),
    pytest.mark.skipif(sys.platform != "linux" or not COMPILER, reason="needs Linux and a C compiler"),
]

KINDS = ["open", "write", "read", "fsync", "rename", "fcntl", "stat", "list", "mkdir"]
STEPS = 20

# One process lets the first, second, … call of one kind fail, until a run makes fewer calls.
RUNS = """
import ctypes, itertools, json
kind, error, step_by, steps = "{kind}", {error}, {step_by}, {steps}
calls = ctypes.CDLL(None)
said = []
class Said(logging.Handler):
    def emit(self, record):
        if record.name.startswith("hf_summary_writer") and record.levelno >= logging.WARNING:
            said.append(record.getMessage())
logging.getLogger().handlers = [Said()]
for number in itertools.count(1, step_by):
    said.clear()
    name = f"{{kind}}-{{number}}"
    calls.failing_calls_begin(f"{{logdir}}/{{name}}".encode(), kind.encode(), number, error)
    writer = HFSummaryWriter(repo_id, logdir=f"{{logdir}}/{{name}}", commit_every=60, segment_bytes=600)
    for step in range(steps):
        writer.add_scalar("loss", step, step)
        if step == steps // 2:
            writer.add_hparams({{"lr": 0.1}}, {{"accuracy": 0.5}}, name="trial")
            writer.scheduler.trigger().exception(30)
    writer.close()
    has_failed = calls.failing_calls_end() > 0
    print(json.dumps([name, any("hf-summary-writer sync" in line for line in said), said]), flush=True)
    if not has_failed:
        break
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build the library that makes calls fail, and return its path."""
    built = str(tmp_path_factory.mktemp("library") / "failing_calls.so")
    source = str(Path(__file__).with_name("failing_calls.c"))
    subprocess.run([COMPILER, "-shared", "-fPIC", "-O1", "-o", built, source, "-ldl"], check=True)
    return built


EVERY = [pytest.param(kind, 1, marks=[pytest.mark.slow, pytest.mark.timeout(1200)]) for kind in KINDS]


@pytest.mark.parametrize(("kind", "step_by"), [("open", 19), ("write", 5), ("stat", 41), *EVERY])
def test_a_call_that_fails_once_loses_no_event_and_missing_files_are_named(
    hub: HubProcess,
    api: HfApi,
    repo_id: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    library: str,
    kind: str,
    step_by: int,
) -> None:
    logdir = tmp_path / "runs"
    logdir.mkdir()
    with monkeypatch.context() as patch:
        patch.setenv("LD_PRELOAD", library)
        body = RUNS.format(kind=kind, error=errno.EIO, step_by=step_by, steps=STEPS)
        ended = scripts.run(body, hub, logdir, repo_id, seconds=1100 if step_by == 1 else 100)
    assert ended.returncode == 0, ended.stderr
    runs = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(runs) > 1, "no call of this kind was made"
    there = remote.files(api, repo_id)
    for name, is_named, said in runs:
        assert events.steps(logdir / name, "loss", growing=True) == list(range(STEPS)), (name, said)
        assert events.steps(logdir / name / "trial", "accuracy", growing=True) == [0], (name, said)
        here = remote.under(logdir / name, f"tensorboard/{name}")
        assert is_named or here.items() <= there.items(), (name, said)
    synced = commands.invoke(hub, "sync", logdir, home=tmp_path)
    assert synced.returncode == 0, synced.stderr
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard")
