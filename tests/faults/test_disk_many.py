"""Pushing a few new files of 50,000, or many folders, takes few descriptors and little memory."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

import remote
import scripts
from hf_summary_writer.config import Destination
from hf_summary_writer.folder import scan
from hf_summary_writer.folder.disk import STATE_FOLDER
from hf_summary_writer.folder.ledger import Ledger, LedgerEntry
from hf_summary_writer.folder.patterns import PathFilter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

KNOWN, NEW, PER_FOLDER, DEPTH = 49_875, 125, 500, 100

# Every push runs in a process that may open few files and prints its memory use.
PUSH = """
import json, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 1e6
commits = []
def on_commit(details):
    commits.append(details.files)
    if len(commits) == stop_after:
        scheduler.stop()
scheduler = CommitScheduler(repo_id=repo_id, folder_path=logdir, every=60, on_commit=on_commit)
before = resident()
scheduler.trigger().exception(60)
scheduler.last_future.exception(60)
pushed = resident()
for _ in range(3):
    assert stop_after or scheduler.trigger().result(60) is None
scheduler.stop()  # a last push would find that most files are not on the Hub
print(json.dumps({"commits": commits, "pushing": pushed - before, "idle": resident() - pushed}))
"""


@pytest.fixture
def many(tmp_path_factory: pytest.TempPathFactory, hub: HubProcess, api: HfApi, repo_id: str) -> Iterator[Path]:
    """Return a folder of 50,000 files, the last ones missing in the ledger and some of those deeply nested."""
    folder = tmp_path_factory.mktemp("many") / "run"
    for number in range(KNOWN):
        if number % PER_FOLDER == 0:
            (folder / f"{number:05}").mkdir(parents=True)
        (folder / f"{number // PER_FOLDER * PER_FOLDER:05}" / f"{number:05}").touch()
    api.create_repo(repo_id)
    destination = Destination(hub.endpoint, "model", repo_id, "main", "")
    ledger = Ledger(folder / STATE_FOLDER / f"{destination.key}.jsonl", destination)
    ledger.record_repo(repo_id)
    found = scan.FolderScan(str(folder), PathFilter())
    ledger.record({candidate.relpath: LedgerEntry(candidate.signature, 0) for candidate in found})
    deep = folder.joinpath(*["d"] * DEPTH)
    deep.mkdir(parents=True)
    for number in range(NEW):
        (folder if number % 25 else deep).joinpath(f"new-{number}").write_bytes(b"%d" % number)
    yield folder
    shutil.rmtree(folder)  # pytest would keep the folder


@pytest.mark.slow
@pytest.mark.faults("D7")
def test_new_files_among_50_000_are_pushed_with_few_resources_and_resumed(
    many: Path, hub: HubProcess, api: HfApi, repo_id: str
) -> None:
    interrupted = push(many, hub, repo_id, stop_after=1)
    assert interrupted["commits"] == [100]
    resumed = push(many, hub, repo_id, stop_after=0)
    assert resumed["commits"] == [25]
    # MB; most of it is the client, which the first commit imports.
    assert resumed["pushing"] < 150
    assert resumed["idle"] < 5
    new = {path.relative_to(many).as_posix(): path.read_bytes() for path in many.rglob("new-*")}
    assert len(new) == NEW
    assert remote.files(api, repo_id) == new


SCHEDULERS = 80

# Far fewer descriptors than schedulers.
MANY = f"""
import resource
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
folders = [Path(logdir, str(number)) for number in range({SCHEDULERS})]
for folder in folders:
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text(folder.name)
schedulers = [
    CommitScheduler(repo_id=repo_id, folder_path=folder, path_in_repo=folder.name, every=60) for folder in folders
]
for scheduler in schedulers:
    scheduler.trigger().result(60)
with open(os.devnull), open(os.devnull), open(os.devnull):
    pass
for scheduler in schedulers:
    scheduler.close()
"""


@pytest.mark.faults("D7")
def test_more_schedulers_than_descriptors_push_all_their_folders(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    ended = scripts.run(MANY, hub, tmp_path / "runs", repo_id)
    assert ended.returncode == 0, ended.stderr
    assert "WARNING" not in ended.stderr
    assert remote.files(api, repo_id) == {f"{number}/a.txt": b"%d" % number for number in range(SCHEDULERS)}


def push(folder: Path, hub: HubProcess, repo_id: str, *, stop_after: int) -> dict[str, Any]:
    ended = scripts.run(f"stop_after = {stop_after}\n{PUSH}", hub, folder, repo_id)
    assert ended.returncode == 0, ended.stderr
    figures: dict[str, Any] = json.loads(ended.stdout)
    return figures
