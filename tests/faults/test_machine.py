"""Machines without a writable home or enough memory, and storage that never responds."""

from __future__ import annotations

import gzip
import logging
import math
import os
import threading
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import constants

import events
import remote
import scripts
from faults.mounts import a_disk_of
from faults.proxy import Answer, Delay
from hf_summary_writer.errors import ActionNeededError, DeadlineError, TemporaryError
from hf_summary_writer.hub import xet
from hf_summary_writer.hub.thread import HubThread

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import HfApi

    from faults.conftest import World
    from hub_process import HubProcess

pytestmark = [pytest.mark.faults, pytest.mark.client]

HOURS = 10_000.0  # seconds
needs_xet = pytest.mark.skipif(constants.HF_HUB_DISABLE_XET, reason="Xet is switched off")

LOG = """
    with HFSummaryWriter(repo_id, logdir) as writer:
        for step in range(300):
            writer.add_scalar("loss", step, step)
"""


@needs_xet
@pytest.mark.faults("M1")
@pytest.mark.parametrize("can_use_temporary_folder", [True, False])
def test_without_a_writable_home_everything_is_uploaded(
    hub: HubProcess,
    api: HfApi,
    repo_id: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    can_use_temporary_folder: bool,
) -> None:
    (tmp_path / "hf-home").touch()
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.delenv("HF_XET_CACHE", raising=False)
    cache = temporary / f"hf-summary-writer-xet-{os.geteuid()}"
    if not can_use_temporary_folder:
        cache.touch()
    logdir = tmp_path / "run"
    ended = scripts.run(LOG, hub, logdir, repo_id)
    assert ended.returncode == 0, ended.stderr
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run")
    if can_use_temporary_folder:
        assert cache.stat().st_mode & 0o777 == 0o700
        assert "over plain LFS" not in ended.stderr
    else:
        assert "Uploading over plain LFS instead of Xet" in ended.stderr
        assert "HF_HOME" in ended.stderr


@needs_xet
@pytest.mark.faults("M1")
def test_a_full_home_neither_stops_the_first_upload_nor_a_later_one(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("HF_XET_CACHE", raising=False)
    logdir, cache = tmp_path / "run", tmp_path / f"hf-summary-writer-xet-{os.geteuid()}"
    with a_disk_of("64k", tmp_path / "hf-home"), a_disk_of("1m", cache):
        cache.chmod(0o700)
        body = f"""
        scheduler = CommitScheduler(repo_id=repo_id, folder_path=logdir, every=60)
        for number in range(3):
            open(logdir + f"/{{number}}.bin", "wb").write(os.urandom(1000))
            scheduler.trigger().result()
            try:
                open({str(cache / "ballast")!r}, "wb", buffering=0).write(bytes(2**20))
            except OSError:
                pass
        """
        ended = scripts.run(body, hub, logdir, repo_id)
    assert ended.returncode == 0, ended.stderr
    assert remote.files(api, repo_id) == remote.under(logdir, "", "*")
    assert "could not be pushed" not in ended.stderr
    assert ended.stderr.count("Uploading over plain LFS instead of Xet: an upload over it failed") == 1


@needs_xet
@pytest.mark.faults("M2")
def test_a_process_with_little_address_space_uploads_over_plain_lfs(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    limited = """
    import resource
    from huggingface_hub import HfApi
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 400 * 2**20, resource.RLIM_INFINITY))
    """
    logdir = tmp_path / "run"
    ended = scripts.run(limited + LOG, hub, logdir, repo_id)
    assert ended.returncode == 0, ended.stderr
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run")
    assert "ulimit -v" in ended.stderr


CGROUP_V2 = ("0::/pod/run\n", "pod/memory.max", "pod/memory.current", "pod/memory.stat", "inactive_file")
CGROUP_V1 = (
    "5:cpu:/x\n4:memory:/pod/run\n",
    "memory/memory.limit_in_bytes",
    "memory/memory.usage_in_bytes",
    "memory/memory.stat",
    "total_inactive_file",
)


def limit_memory(version: tuple[str, ...], folder: Path, monkeypatch: pytest.MonkeyPatch, most: str, used: int) -> None:
    own, limit, usage, statistics, cached = version
    (folder / "own").write_text(own)
    for name, text in {limit: most, usage: str(used), statistics: f"anon 1\n{cached} 50000000"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + "\n")
    monkeypatch.setattr(xet, "_CONTROL_GROUPS", folder)
    monkeypatch.setattr(xet, "_OWN_CONTROL_GROUPS", folder / "own")


@needs_xet
@pytest.mark.faults("M2")
@pytest.mark.parametrize("version", [CGROUP_V2, CGROUP_V1], ids=["v2", "v1"])
def test_a_process_in_a_small_control_group_uploads_over_plain_lfs(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple[str, ...]
) -> None:
    limit_memory(version, tmp_path, monkeypatch, "1000000000", 800_000_000)
    (world.folder / "a.bin").write_bytes(os.urandom(1000))
    run = world.schedule()
    run.next_commit()
    assert world.uploaded() == world.on_disk()
    assert [line for line in world.said(logging.WARNING) if "cgroups" in line] != []
    assert not [seen for seen in world.proxy.requests if "/xorbs/" in seen.path]


@pytest.mark.parametrize("version", [CGROUP_V2, CGROUP_V1], ids=["v2", "v1"])
def test_cached_files_do_not_count_as_used_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: tuple[str, ...]
) -> None:
    limit_memory(version, tmp_path, monkeypatch, "1000000000", 750_000_000)
    assert xet._memory_left() == 300_000_000


@pytest.mark.parametrize("most", ["max", "", "odd"])
def test_a_control_group_without_a_limit_leaves_all_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: str
) -> None:
    limit_memory(CGROUP_V2, tmp_path, monkeypatch, most, 10**12)
    assert xet._memory_left() == math.inf
    (tmp_path / "own").unlink()
    assert xet._memory_left() == math.inf


@pytest.mark.faults("N18")
def test_at_most_four_calls_to_the_hub_hang_at_a_time() -> None:
    thread, release = HubThread(), threading.Event()
    for _ in range(4):
        with pytest.raises(DeadlineError, match="did not answer"):
            thread.call(lambda: release.wait(60), 0.01)
    before = threading.active_count()
    with pytest.raises(DeadlineError, match="4 calls to the Hub hang"):
        thread.call(lambda: True, 20)
    assert threading.active_count() == before
    release.set()
    events.wait_until(lambda: thread.left_behind == 0)
    assert thread.call(lambda: True, 20)
    thread.stop()


@needs_xet
@pytest.mark.faults("N18")
def test_after_hangs_of_the_xet_storage_plain_lfs_is_used(world: World) -> None:
    run = world.schedule()
    run.settle()
    (world.folder / "first.txt").write_bytes(b"1")
    run.push()
    for number in range(2):
        (world.folder / f"{number}.bin").write_bytes(os.urandom(10_000))
        world.hang(run, ("POST", r"/v\d/xorbs/"), Delay(HOURS))
    run.allow(20.0)
    run.push()
    assert world.uploaded() == world.on_disk()
    assert [line for line in world.said(logging.WARNING) if "over plain LFS" in line] != []
    threads = [thread for thread in threading.enumerate() if thread.name == "hf-summary-writer-hub"]
    assert len(threads) <= 3


@needs_xet
@pytest.mark.faults("N18")
def test_a_first_upload_that_hangs_over_xet_is_made_over_plain_lfs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xet, "FIRST_UPLOAD_SECONDS", 0.5)
    monkeypatch.setattr(xet, "has_worked", threading.Event())
    world.proxy.add("POST", r"/v\d/xorbs/", Delay(HOURS), math.inf)
    (world.folder / "a.bin").write_bytes(os.urandom(1000))
    run = world.schedule()
    run.next_commit()
    assert world.uploaded() == world.on_disk()
    [warning] = world.said(logging.WARNING)
    assert "over plain LFS instead of Xet: an upload over it did not end in time" in warning
    (world.folder / "b.bin").write_bytes(os.urandom(1000))
    asked = len(world.proxy.requests)
    run.push()
    assert not [seen for seen in world.proxy.requests[asked:] if "/xet-" in seen.path]


@needs_xet
@pytest.mark.faults("N18")
@pytest.mark.parametrize("request_", [("POST", "/preupload/"), ("POST", "/info/lfs/objects/batch")])
def test_xet_stays_in_use_when_plain_lfs_fails_too(
    world: World, monkeypatch: pytest.MonkeyPatch, request_: tuple[str, str]
) -> None:
    monkeypatch.setattr(xet, "FIRST_UPLOAD_SECONDS", 0.5)
    monkeypatch.setattr(xet, "has_worked", threading.Event())
    world.proxy.add("POST", r"/v\d/xorbs/", Delay(HOURS), math.inf)
    world.proxy.add(*request_, Answer(503), math.inf)
    run = world.schedule()
    (world.folder / "a.bin").write_bytes(os.urandom(1000))
    assert isinstance(run.fail(), TemporaryError)
    assert not constants.HF_HUB_DISABLE_XET


@needs_xet
@pytest.mark.faults("N18")
def test_a_slow_hub_is_no_reason_to_leave_xet(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xet, "FIRST_UPLOAD_SECONDS", 1.0)
    monkeypatch.setattr(xet, "has_worked", threading.Event())
    world.proxy.add("POST", "/preupload/", Delay(1.5), math.inf)
    (world.folder / "a.bin").write_bytes(os.urandom(1000))
    run = world.schedule()
    run.next_commit()
    assert world.uploaded() == world.on_disk()
    assert world.said(logging.WARNING) == []
    assert not constants.HF_HUB_DISABLE_XET


@pytest.mark.faults("M4")
def test_a_panic_of_native_code_is_a_temporary_error(world: World) -> None:
    class PanicException(BaseException):
        pass

    def panic() -> None:
        raise PanicException("failed to spawn thread")

    run = world.schedule()
    with pytest.raises(TemporaryError, match="failed to spawn thread") as raised:
        run.scheduler._remote.client.guarded(panic, repo="it", known=True)
    assert raised.value.is_outside_requests


@pytest.mark.faults("N19")
def test_a_full_quota_is_reported_with_the_hubs_message(world: World) -> None:
    said = "Private repository storage limit reached, please upgrade your plan."
    world.proxy.add("POST", "/commit/", Answer(403, {"X-Error-Message": said}))
    (world.folder / "a.bin").write_bytes(b"1")
    run = world.schedule()
    assert isinstance(run.next_error(), ActionNeededError)
    [warning] = world.said(logging.WARNING)
    assert said in warning
    assert "token" not in warning


@needs_xet
@pytest.mark.faults("N19")
def test_a_refused_xet_token_is_not_a_network_error(world: World) -> None:
    world.proxy.add("GET", "/xet-write-token/", Answer(403, {"X-Error-Message": "storage limit reached"}), float("inf"))
    (world.folder / "a.bin").write_bytes(b"1")
    run = world.schedule()
    error = run.next_error()
    assert isinstance(error, ActionNeededError)
    assert "storage" in str(error)  # the Hub's message, if the client passes it on


@pytest.mark.faults("S4")
def test_a_response_of_more_than_64_mb_is_refused(world: World) -> None:
    world.proxy.add("POST", "/preupload/", Answer(200, {"Content-Type": "application/json"}, b" " * (65 * 2**20)))
    (world.folder / "a.bin").write_bytes(b"1")
    run = world.schedule()
    error = run.next_error()
    assert isinstance(error, TemporaryError)
    assert "more than 64 MB" in str(error)
    run.push()
    assert world.uploaded() == world.on_disk()


@pytest.mark.faults("S4")
def test_a_compressed_response_is_refused(world: World) -> None:
    bomb = gzip.compress(b" " * 100_000_000, compresslevel=1)
    world.proxy.add("POST", "/preupload/", Answer(200, {"Content-Encoding": "gzip"}, bomb))
    (world.folder / "a.bin").write_bytes(b"1")
    run = world.schedule()
    error = run.next_error()
    assert isinstance(error, TemporaryError)
    assert "compressed" in str(error)
    run.push()
    assert world.uploaded() == world.on_disk()
