"""Memory during a push is bounded for files of any size."""

from __future__ import annotations

import hashlib
import json
import random
from typing import TYPE_CHECKING

import pytest

import remote
import scripts
from hf_summary_writer.events.tfrecord import frame

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

SIZE = 200 * 10**6
MOST = 100 * 10**6
# The client holds several copies of each text file.
MOST_OF_TEXT = 150 * 10**6
EVENTS = "events.out.tfevents.1700000000.another.writer"

PUSH = """
import json, psutil
def bytes_of_our_own():
    return psutil.Process().memory_full_info().uss
def pushed(folder, repo_id):
    CommitScheduler(repo_id=repo_id, folder_path=folder, every=60).trigger().result(100)
pushed(logdir + "-small", repo_id + "-small")  # the first push of a process allocates memory that stays
idle = peak = bytes_of_our_own()
over = threading.Event()
def watch():
    global peak
    while not over.wait(0.01):
        peak = max(peak, bytes_of_our_own())
watcher = threading.Thread(target=watch)
watcher.start()
pushed(logdir, repo_id)
over.set()
watcher.join()
print(json.dumps(peak - idle))
"""


@pytest.mark.timeout(300)
def test_pushing_a_large_event_file_of_another_writer_uses_little_memory(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    logdir, small = tmp_path / "run", tmp_path / "run-small"
    for folder in (logdir, small):
        folder.mkdir()
    (small / EVENTS).write_bytes(frame(b"x") * 2)
    seeded, digest = random.Random(1), hashlib.sha256()
    with (logdir / EVENTS).open("wb") as file:
        for _ in range(0, SIZE, 100_000):
            record = frame(seeded.randbytes(100_000 - 16))
            digest.update(record)
            file.write(record)
    ended = scripts.run(PUSH, hub, logdir, repo_id, seconds=150)
    assert ended.returncode == 0, ended.stderr
    [uploaded] = remote.files(api, repo_id).values()
    assert hashlib.sha256(uploaded).hexdigest() == digest.hexdigest()
    assert json.loads(ended.stdout) <= MOST


@pytest.mark.timeout(300)
def test_pushing_text_inside_commits_uses_little_memory(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Return freed memory to the system, so that the test measures used memory and not the C library's cache.
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "1000000")
    logdir, small = tmp_path / "run", tmp_path / "run-small"
    for folder in (logdir, small):
        folder.mkdir()
    (small / "a.jsonl").write_bytes(b"{}\n")
    for number in range(12):
        (logdir / f"{number}.jsonl").write_bytes(b'{"loss": %2d}\n' % number * (9 * 2**20 // 13))
    ended = scripts.run(PUSH, hub, logdir, repo_id, seconds=150)
    assert ended.returncode == 0, ended.stderr
    assert remote.files(api, repo_id) == remote.under(logdir, "", "*")
    assert json.loads(ended.stdout) <= MOST_OF_TEXT
