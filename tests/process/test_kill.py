"""After `kill -9` at any step of a push the next run uploads exactly the missing data."""

from __future__ import annotations

import logging
import re
import signal
from typing import TYPE_CHECKING

import pytest

import commands
import events
import remote
import scripts
from aftermath import assert_sound
from faults.proxy import FaultProxy, Hang
from hf_summary_writer import CommitScheduler
from hub.test_bucket import needs_a_client_for_buckets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess


# The script kills itself at steps that are not visible from outside.
KILL = """
from stat import S_ISDIR
def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
from hf_summary_writer.folder import ledger, scan
from hf_summary_writer.hub import bucket, repo
"""
AFTER_THE_COMMIT = """
record = ledger.Ledger.record
def then(self, arrivals, commit=None):
    %s
    record(self, arrivals, commit)
    kill()
ledger.Ledger.record = then
"""
STEPS = {
    "before the scan": "scan.FolderScan = kill",
    "planned": "repo.RepoRemote._commit = bucket.BucketRemote._send = kill",
    "commit acknowledged, ledger not written": "ledger.Ledger.record = kill",
    "ledger half written": AFTER_THE_COMMIT
    % "self._append = lambda entries: open(self.path, 'ab').write(b'{\"file\": \"x') and kill()",
    "ledger temporary file written": AFTER_THE_COMMIT % "ledger._MIN_LINES_TO_COMPACT = 0; os.replace = kill",
    "ledger renamed": AFTER_THE_COMMIT
    % "ledger._MIN_LINES_TO_COMPACT = 0; os.fsync = lambda fd: S_ISDIR(os.fstat(fd).st_mode) and kill()",
    "ledger written": AFTER_THE_COMMIT % "pass",
}
# These are visible: the proxy holds the request back.
REQUESTS = {"mid-blob": r"/xorb|/lfs-objects/", "blobs done": r"/commit/|/batch"}

LOG = """
writer = HFSummaryWriter(repo_id, logdir=logdir, commit_every=60)
for step in range(1000):
    writer.add_scalar("loss", step, step)
writer.flush()
writer.scheduler.trigger()
time.sleep(60)
"""

KILL_AT_IMPORT = """
class Importer:
    def find_spec(self, name, *_):
        if name == "huggingface_hub.hf_api":
            logged.wait(60)
            os.kill(os.getpid(), signal.SIGKILL)
sys.meta_path.insert(0, Importer())
logged = threading.Event()
writer = HFSummaryWriter(repo_id, logdir=logdir)
writer.add_scalar("loss", 1, 1)
writer.flush()
logged.set()
time.sleep(60)
"""


def catch_up(client: HfApi, place: str, logdir: Path) -> None:
    """Push a folder's new data, as the next process does."""
    with CommitScheduler(
        repo_id=place,
        folder_path=logdir,
        path_in_repo="tensorboard/run-1",
        allow_patterns="*.tfevents.*",
        hf_api=client,
    ):
        pass


@pytest.mark.faults("P1")
@pytest.mark.parametrize("repo_type", ["model", pytest.param("bucket", marks=needs_a_client_for_buckets)])
@pytest.mark.parametrize("step", [*STEPS, *REQUESTS])
def test_after_a_kill_at_any_step_only_missing_data_is_uploaded(
    proxy: FaultProxy,
    api: HfApi,
    client: Callable[..., HfApi],
    repo_id: str,
    logdir: Path,
    step: str,
    repo_type: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    place = f"hf://{repo_type}s/{repo_id}"
    if step in REQUESTS:
        proxy.add("*", REQUESTS[step], Hang(), times=1)
    with scripts.start((KILL + STEPS[step] if step in STEPS else "") + LOG, proxy, logdir, place) as process:
        if step in REQUESTS:
            events.wait_until(lambda: any(seen.action == Hang() for seen in proxy.requests), scripts.SECONDS)
            process.kill()
        _, err = process.communicate(timeout=scripts.SECONDS)
    assert process.returncode == -signal.SIGKILL, err
    assert_sound(logdir)
    proxy.clear()

    caplog.set_level(logging.WARNING, "hf_summary_writer")
    catch_up(client(proxy), place, logdir)
    assert caplog.messages == []
    assert events.steps(logdir, "loss") == list(range(1000))
    assert remote.files(api, repo_id, repo_type=repo_type) == remote.under(logdir, "tensorboard/run-1")
    if repo_type == "model":
        assert len([title for title in remote.commits(api, repo_id) if title.startswith("Logs of")]) == 1
    assert not list(logdir.rglob("tmp-*"))

    before = len(proxy.requests)
    catch_up(client(proxy), place, logdir)
    assert len([seen for seen in proxy.requests[before:] if not re.search("/api/models/.*/info", seen.path)]) == 0
    assert_sound(logdir)


@pytest.mark.faults("P1")
def test_a_run_that_is_killed_while_the_client_is_imported_knows_its_destination(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path
) -> None:
    ended = scripts.run(KILL_AT_IMPORT, hub, logdir, repo_id)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    done = commands.invoke(hub, "sync", logdir, home=logdir.parent)
    assert done.returncode == 0, done.stderr
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run-1")
