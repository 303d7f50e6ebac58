"""The machine lacks what the Hub's client relies on: a home folder, memory, a storage that answers."""

from __future__ import annotations

import gzip
import logging
import os
import threading
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import constants

import remote
import scripts
from faults.proxy import Answer, Delay
from hf_summary_writer.errors import ActionNeededError, DeadlineError, TemporaryError

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


@needs_xet
@pytest.mark.faults("N18")
def test_a_storage_that_never_answers_is_given_up_for_plain_lfs(world: World) -> None:
    run = world.schedule()
    run.settle()
    (world.folder / "first.txt").write_bytes(b"1")
    run.push()
    run.allow(1.0)
    world.proxy.add("POST", r"/v\d/xorbs/", Delay(HOURS), float("inf"))
    for number in range(2):
        (world.folder / f"{number}.bin").write_bytes(os.urandom(10_000))
        assert isinstance(run.fail(), DeadlineError)
    run.allow(20.0)
    run.push()
    assert world.uploaded() == world.on_disk()
    assert [line for line in world.said(logging.WARNING) if "over plain LFS" in line] != []
    threads = [thread for thread in threading.enumerate() if thread.name == "hf-summary-writer-hub"]
    assert len(threads) <= 3


@pytest.mark.faults("N19")
def test_a_full_quota_is_told_in_the_words_of_the_hub(world: World) -> None:
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
def test_a_refused_upload_token_is_no_trouble_of_the_network(world: World) -> None:
    world.proxy.add("GET", "/xet-write-token/", Answer(403, {"X-Error-Message": "storage limit reached"}), float("inf"))
    (world.folder / "a.bin").write_bytes(b"1")
    run = world.schedule()
    error = run.next_error()
    assert isinstance(error, ActionNeededError)
    assert "storage" in str(error)  # the words of the Hub, if the client passes them on


@pytest.mark.faults("S4")
def test_a_small_answer_that_is_huge_once_decompressed_is_not_read(world: World) -> None:
    bomb = gzip.compress(b" " * 100_000_000, compresslevel=1)
    world.proxy.add("POST", "/preupload/", Answer(200, {"Content-Encoding": "gzip"}, bomb))
    (world.folder / "a.bin").write_bytes(b"1")
    run = world.schedule()
    error = run.next_error()
    assert isinstance(error, TemporaryError)
    assert "compressed" in str(error)
    run.push()
    assert world.uploaded() == world.on_disk()
