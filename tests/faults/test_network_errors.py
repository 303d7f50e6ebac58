"""The Hub refuses a token, a repo or a file, or is busy."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import HfApi, constants

import remote
from events import wait_until
from faults.conftest import HOUR, OFTEN, SECONDS
from faults.proxy import Answer, Hold, LoseAnswer, Pass
from hf_summary_writer import HFSummaryWriter
from hf_summary_writer.errors import ActionNeededError, RepoGoneError, TemporaryError
from hf_summary_writer.folder.ledger import ledgers_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from faults.conftest import World

pytestmark = [pytest.mark.faults, pytest.mark.client]  # the client raises the errors

FOREVER = float("inf")


@pytest.fixture
def token_file() -> Iterator[Path]:
    """Return the file in which `hf auth login` stores the token."""
    path = Path(constants.HF_TOKEN_PATH)
    path.parent.mkdir(parents=True, exist_ok=True)
    yield path
    path.unlink(missing_ok=True)


def test_an_unreadable_stored_token_is_reported_in_one_line(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path))  # a folder, as HF_HOME of another user
    run = world.schedule(hf_api=HfApi(endpoint=world.proxy.endpoint))
    assert isinstance(run.next_error(), TemporaryError)
    [warning] = world.said(logging.WARNING)
    assert "this machine failed" in warning
    assert str(tmp_path) in warning


@pytest.mark.faults("N1")
def test_a_run_without_a_token_warns_once_and_uploads_once_one_is_stored(world: World, token_file: Path) -> None:
    run = world.schedule(hf_api=HfApi(endpoint=world.proxy.endpoint), every=OFTEN)
    for number in range(3):
        (world.folder / f"{number}.txt").write_bytes(b"1")
        assert isinstance(run.next_error(), ActionNeededError)
    assert world.proxy.requests == []
    [warning] = world.said(logging.WARNING)
    assert world.repo_id in warning
    assert "hf auth login" in warning
    token_file.write_text("hf_" + "x" * 30)
    while not world.proxy.requests:
        assert isinstance(run.next_error(), ActionNeededError)
    assert world.said(logging.WARNING) == [warning]
    token_file.write_text(world.proxy.token)
    run.next_commit()
    run.settle()
    assert world.uploaded() == world.on_disk()
    assert len([line for line in world.said(logging.INFO) if "again, after" in line]) == 1


@pytest.mark.parametrize("status", [401, 402, 403])
@pytest.mark.parametrize("request_", ["/repos/create", "/preupload/", "/commit/"])
def test_a_read_only_token_is_reported_with_the_repo(world: World, status: int, request_: str) -> None:
    world.proxy.add("POST", request_, Answer(status, {"X-Error-Message": "not with this token"}))
    (world.folder / "a.bin").write_bytes(b"1")
    run = world.schedule()
    assert isinstance(run.next_error(), ActionNeededError)
    [warning] = world.said(logging.WARNING)
    assert world.repo_id in warning
    assert "token" in warning
    assert ("hf auth login" if status == 401 else "use one with write access") in warning
    run.settle()
    # Retried once per interval, not more often.
    assert HOUR * 60 - 30 < run.scheduler._task.state.seconds <= HOUR * 60
    assert run.push() is not None


@pytest.mark.faults("N2")
def test_a_deleted_repo_is_not_recreated_and_gets_all_files_once_it_exists(world: World) -> None:
    (world.folder / "early.bin").write_bytes(os.urandom(1000))
    run = world.schedule()
    run.next_commit()
    run.settle()
    world.api.delete_repo(world.repo_id)
    world.hub.reset_stats()
    for number in range(3):
        (world.folder / f"{number}.bin").write_bytes(os.urandom(1000))
        assert isinstance(run.fail(), RepoGoneError)
    [error] = world.said(logging.WARNING)
    assert world.said(logging.ERROR) == [error]
    assert world.repo_id in error
    assert "not created again" in error
    assert not [request for request in world.hub.requests if request.path == "/api/repos/create"]
    assert len(world.on_disk()) == 4
    world.api.create_repo(world.repo_id)
    assert run.push() is not None
    assert world.uploaded() == world.on_disk()


def test_all_schedulers_of_a_process_start_over_when_the_repo_is_gone(world: World, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("busy", "idle", "later")]
    for folder in folders:
        folder.mkdir()
        (folder / "early.bin").write_bytes(os.urandom(1000))
    busy, idle, ended = [world.schedule(folder_path=folder, path_in_repo=folder.name) for folder in folders]
    for run in (busy, idle, ended):
        run.next_commit()
        run.settle()
    ended.scheduler.close()
    world.api.delete_repo(world.repo_id)
    (folders[0] / "late.bin").write_bytes(b"1")
    assert isinstance(busy.fail(), RepoGoneError)
    world.api.create_repo(world.repo_id)
    assert busy.push() is not None
    assert idle.push() is not None
    later = world.schedule(folder_path=folders[2], path_in_repo="later")
    later.next_commit()
    later.settle()
    expected = {path: body for folder in folders for path, body in remote.under(folder, folder.name, "*").items()}
    assert len(expected) == 4
    assert world.uploaded() == expected
    before = len(world.proxy.requests)
    assert [run.push() for run in (busy, idle, later)] == [None] * 3
    assert len(world.proxy.requests) == before


def test_a_process_started_while_the_repo_is_gone_uploads_all_files_later(world: World) -> None:
    (world.folder / "early.bin").write_bytes(b"1")
    first = world.schedule()
    first.next_commit()
    first.settle()
    world.api.delete_repo(world.repo_id)
    (world.folder / "late.bin").write_bytes(b"2")
    assert isinstance(first.fail(), RepoGoneError)
    first.scheduler.close()
    [ledger] = ledgers_of(world.folder)  # as read by another process
    assert ledger.entries == {}
    world.api.create_repo(world.repo_id)
    world.schedule().scheduler.close()
    assert world.uploaded() == world.on_disk()


@pytest.mark.faults("N15")
def test_a_deleted_branch_is_recreated_with_all_files(world: World) -> None:
    (world.folder / "a.bin").write_bytes(os.urandom(1000))
    run = world.schedule(revision="runs", squash_history=True)
    run.next_commit()
    run.settle()
    world.api.delete_branch(world.repo_id, branch="runs")
    (world.folder / "b.bin").write_bytes(os.urandom(1000))
    assert run.push() is not None
    assert remote.files(world.api, world.repo_id, revision="runs") == world.on_disk()
    assert len(remote.commits(world.api, world.repo_id, revision="runs")) == 1
    [warning] = world.said(logging.WARNING)
    assert world.repo_id in warning
    assert "made again" in warning
    before = len(world.proxy.requests)
    assert run.push() is None
    assert len(world.proxy.requests) == before


@pytest.mark.parametrize("request_", ["/commit/", "/super-squash/"])
def test_a_branch_deleted_during_a_shared_push_loses_no_file(world: World, tmp_path: Path, request_: str) -> None:
    folders = [tmp_path / name for name in ("one", "two", "three")]
    runs = []
    for folder in folders:
        folder.mkdir()
        (folder / "early.bin").write_bytes(os.urandom(1000))
        runs.append(world.schedule(folder_path=folder, path_in_repo=folder.name, revision="runs", squash_history=True))
    for run in runs:
        run.next_commit()
        run.settle()
    for folder in folders:
        (folder / "late.bin").write_bytes(os.urandom(1000))
    before = len(world.proxy.requests)
    world.proxy.add("POST", request_, Hold())
    futures = [run.scheduler.trigger() for run in runs]
    wait_until(lambda: any(seen.action == Hold() for seen in world.proxy.requests[before:]))
    world.api.delete_branch(world.repo_id, branch="runs")
    world.proxy.clear()
    for future in futures:
        assert future.exception(SECONDS) is None
    expected = {path: body for folder in folders for path, body in remote.under(folder, folder.name, "*").items()}
    assert len(expected) == 6
    assert remote.files(world.api, world.repo_id, revision="runs") == expected


def test_after_a_death_while_the_branch_is_recreated_the_next_process_uploads_all(world: World) -> None:
    (world.folder / "early.bin").write_bytes(b"1")
    first = world.schedule(revision="runs")
    first.next_commit()
    first.settle()
    world.api.delete_branch(world.repo_id, branch="runs")
    (world.folder / "late.bin").write_bytes(b"2")
    world.proxy.add("POST", "/branch/", LoseAnswer())
    assert isinstance(first.fail(), TemporaryError)
    first.scheduler.stop()
    [ledger] = ledgers_of(world.folder)  # as read by another process
    assert ledger.entries == {}
    world.schedule(revision="runs").scheduler.close()
    assert remote.files(world.api, world.repo_id, revision="runs") == world.on_disk()


@pytest.mark.faults("N3")
def test_an_existing_repo_is_used_and_a_busy_one_retried(world: World) -> None:
    world.api.create_repo(world.repo_id)
    before = len(world.proxy.requests)
    busy = b'{"error": "Another conflicting operation is in progress"}'
    world.proxy.add("POST", "/repos/create", Answer(409, body=busy), times=2)
    for status in (409, 412, 423):
        world.proxy.add("POST", "/commit/", Answer(status))
    (world.folder / "a.bin").write_bytes(os.urandom(1000))
    run = world.schedule(every=OFTEN)
    run.next_commit()
    run.settle()
    assert world.uploaded() == world.on_disk()
    assert len(world.commits()) == 2
    asked = [seen.path.rsplit("/", 2)[-2] for seen in world.proxy.requests[before:] if seen.method == "POST"]
    assert asked.count("repos") == 3
    # Each attempt asks the Hub for its files before it commits.
    assert [each for each in asked if each in ("preupload", "commit")] == ["preupload", "commit"] * 4
    errors = [run.next_error() for _ in range(5)]
    assert all(isinstance(error, TemporaryError) and not error.in_doubt for error in errors)
    assert len(world.said(logging.WARNING)) == 1


@pytest.mark.faults("N4")
@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_file_that_the_hub_refuses_is_named_and_the_others_are_uploaded(world: World, status: int) -> None:
    for number in range(9):
        (world.folder / f"{number}.bin").write_bytes(os.urandom(100))
    refused = Answer(status, {"X-Error-Message": "this one not"})
    world.proxy.add("POST", "/commit/", refused, FOREVER, body=b'"path": "5.bin"')
    run = world.schedule()
    run.settle()
    expected = world.on_disk()
    del expected["5.bin"]
    assert world.uploaded() == expected
    [warning] = world.said(logging.WARNING)
    assert "5.bin" in warning
    assert "this one not" in warning
    # The file is retried only after a change, and without a second warning.
    asked = len(world.proxy.requests)
    assert run.push() is None
    assert len(world.proxy.requests) == asked
    (world.folder / "5.bin").write_bytes(os.urandom(200))
    run.push()
    assert len(world.proxy.requests) > asked
    assert world.said(logging.WARNING) == [warning]
    world.proxy.clear()
    (world.folder / "5.bin").write_bytes(os.urandom(300))
    assert run.push() is not None
    assert world.uploaded() == world.on_disk()


@pytest.mark.faults("N4")
def test_refused_text_does_not_repeat_earlier_commits(world: World) -> None:
    for number in range(4):
        (world.folder / f"{number}.jsonl").write_bytes(
            b'{"loss": 1}\n' * 250_000
        )  # 3 MB: two of them fit into a commit
    world.proxy.add(
        "POST", "/commit/", Answer(400, {"X-Error-Message": "this one not"}), FOREVER, body=b'"path": "3.jsonl"'
    )
    run = world.schedule()
    run.settle()
    expected = world.on_disk()
    del expected["3.jsonl"]
    assert world.uploaded() == expected
    assert len([seen for seen in world.proxy.requests if "/commit/" in seen.path and seen.action == Pass()]) == 2


def test_a_refused_card_holds_back_no_other_file(world: World) -> None:
    (world.folder / "README.md").write_text("---\ntags: {\n---\n")
    (world.folder / "a.bin").write_bytes(b"1")
    run = world.schedule()
    run.settle()
    assert set(world.uploaded()) == {"a.bin"}
    assert "README.md" in world.said(logging.WARNING)[0]
    (world.folder / "README.md").write_text("---\ntags: [a]\n---\n")
    assert run.push() is not None
    assert world.uploaded() == world.on_disk()


def test_a_refused_state_file_holds_back_no_log(world: World, tmp_path: Path) -> None:
    refused = Answer(400, {"X-Error-Message": "no such name"})
    world.proxy.add("POST", "/commit/", refused, FOREVER, body=b"hf-summary-writer.json")
    logdir = tmp_path / "run-1"
    with HFSummaryWriter(world.repo_id, logdir=logdir, commit_every=60, hf_api=world.api) as writer:
        for step in (1, 2):
            writer.add_scalars("loss", {"a": step, "b": step}, step)
            assert writer.scheduler.trigger().result(60) is not None
        asked = len(world.proxy.requests)
        writer.add_scalar("loss", 3, 3)
        assert writer.scheduler.trigger().result(60) is not None
        assert len([seen for seen in world.proxy.requests[asked:] if "/commit/" in seen.path]) == 1
    assert remote.files(world.api, world.repo_id) == remote.under(logdir, "tensorboard/run-1")
    assert not world.said(logging.WARNING)


def test_a_hub_that_refuses_everything_is_not_asked_for_each_file(world: World) -> None:
    world.proxy.add("POST", "/commit/", Answer(400, {"X-Error-Message": "closed for today"}), FOREVER)
    for number in range(30):
        (world.folder / f"{number}.bin").write_bytes(b"%d" % number)
    run = world.schedule()
    assert isinstance(run.next_error(), ActionNeededError)
    assert len([seen for seen in world.proxy.requests if "/commit/" in seen.path]) < 15
    world.proxy.clear()
    assert run.push() is not None
    run.scheduler.close()
    assert len(world.said(logging.WARNING)) < 8


@pytest.mark.faults("N13")
def test_a_file_ignored_by_gitignore_is_named_and_does_not_count_as_uploaded(world: World) -> None:
    world.api.create_repo(world.repo_id)
    world.api.upload_file(path_or_fileobj=b"*.tmp.bin\n", path_in_repo=".gitignore", repo_id=world.repo_id)
    (world.folder / "a.bin").write_bytes(b"1")
    (world.folder / "b.tmp.bin").write_bytes(b"2")
    run = world.schedule()
    run.settle()
    assert set(world.uploaded()) == {".gitignore", "a.bin"}
    [warning] = world.said(logging.WARNING)
    assert "b.tmp.bin" in warning
    assert ".gitignore" in warning
    assert "b.tmp.bin" not in run.scheduler._job.ledger.entries
    world.hub.reset_stats()
    assert run.push() is None
    assert world.hub.requests == []
    # The file is checked again after a change, without a second warning.
    (world.folder / "b.tmp.bin").write_bytes(b"2 and more")
    assert run.push() is None
    assert [request.path for request in world.hub.requests if "/preupload/" in request.path]
    assert world.said(logging.WARNING) == [warning]
    world.api.upload_file(path_or_fileobj=b"", path_in_repo=".gitignore", repo_id=world.repo_id)
    (world.folder / "b.tmp.bin").write_bytes(b"2 and even more")
    assert run.push() is not None
    assert world.uploaded()["b.tmp.bin"] == b"2 and even more"


@pytest.mark.faults("N4", "N13")
@pytest.mark.parametrize("why", ["the Hub refuses it", "the repo ignores it"])
@pytest.mark.parametrize("until_the_end", [True, False])
def test_refused_and_ignored_files_are_retried_at_close_and_stay_pending(
    world: World, why: str, until_the_end: bool
) -> None:
    world.api.create_repo(world.repo_id)
    if why == "the repo ignores it":
        world.api.upload_file(path_or_fileobj=b"x.tmp\n", path_in_repo=".gitignore", repo_id=world.repo_id)
    else:
        world.proxy.add("POST", "/commit/", Answer(400), FOREVER, body=b'"path": "x.tmp"')
    (world.folder / "a.bin").write_bytes(b"123")
    (world.folder / "x.tmp").write_bytes(b"12345")
    run = world.schedule(ignore_patterns="*.mine")
    run.settle()
    (world.folder / "b.bin").write_bytes(b"1")
    (world.folder / "c.mine").write_bytes(b"not meant")
    run.push()
    assert [(each.files, each.bytes) for each in (run.next_commit(), run.next_commit())] == [(1, 3), (1, 1)]
    status = run.scheduler.status()
    assert (status.pending.files, status.pending.refused, status.pending.bytes) == (0, 1, 5)
    assert not status.all_arrived
    if not until_the_end:
        world.proxy.clear()
        if why == "the repo ignores it":
            world.api.delete_file(".gitignore", repo_id=world.repo_id)
    (world.folder / "d.bin").write_bytes(b"1")
    run.scheduler.close()
    uploaded = set(world.uploaded()) - {".gitignore"}
    assert run.scheduler.status().all_arrived == (not until_the_end)
    if until_the_end:
        assert uploaded == {"a.bin", "b.bin", "d.bin"}
        [_, warning] = world.said(logging.WARNING)
        assert warning == world.said(logging.INFO)[-1]
        assert "1 file" in warning
        assert "hf-summary-writer sync" in warning
    else:
        assert uploaded == {"a.bin", "b.bin", "d.bin", "x.tmp"}
        assert world.said(logging.INFO)[-1].startswith("All of")


@pytest.mark.parametrize("token", ["hf_sec ret", "hf_sec\x00ret", "hf_sécret"], ids=["space", "control", "accent"])
def test_an_invalid_stored_token_is_refused_and_not_shown(world: World, token_file: Path, token: str) -> None:
    world.watch.token = token[:6]
    token_file.write_text(token)
    (world.folder / "a.bin").write_bytes(b"1")
    run = world.schedule(hf_api=HfApi(endpoint=world.proxy.endpoint))
    assert isinstance(run.next_error(), ActionNeededError)
    assert "not shown" in world.said(logging.WARNING)[0]
    assert world.proxy.requests == []


def test_white_space_around_a_stored_token_is_ignored(world: World, token_file: Path) -> None:
    token_file.write_text(f" {world.proxy.token}\r\n")
    (world.folder / "a.bin").write_bytes(b"1")
    run = world.schedule(hf_api=HfApi(endpoint=world.proxy.endpoint))
    run.next_commit()
    assert world.uploaded() == {"a.bin": b"1"}


@pytest.mark.faults("N17")
@pytest.mark.parametrize("request_", ["/preupload/", "/commit/", "/super-squash/"])
def test_a_404_page_of_a_proxy_does_not_make_a_run_start_over(world: World, request_: str) -> None:
    (world.folder / "early.bin").write_bytes(os.urandom(1000))
    run = world.schedule(squash_history=True)
    run.next_commit()
    run.settle()
    ledger = run.scheduler._job.ledger
    early = ledger.entries["early.bin"]
    world.proxy.add("POST", request_, Answer(404, {"Content-Type": "text/html"}, b"<h1>no such page</h1>"))
    (world.folder / "late.bin").write_bytes(os.urandom(1000))
    if request_ == "/super-squash/":
        assert run.push() is not None
    else:
        error = run.fail()
        assert type(error) is ActionNeededError
        assert "HF_ENDPOINT" in str(error)
    [warning] = world.said(logging.WARNING)
    assert request_ in warning
    assert ledger.entries["early.bin"].sha256 == early.sha256
    run.push()
    assert world.uploaded() == world.on_disk()
    assert run.commits.get(timeout=SECONDS).files == 1


@pytest.mark.faults("N17")
def test_a_branch_name_with_commit_in_it_is_no_commit_request(world: World) -> None:
    (world.folder / "a.bin").write_bytes(b"1")
    run = world.schedule(revision="a/commit/b")
    run.next_commit()
    run.settle()
    (world.folder / "b.bin").write_bytes(b"2")
    for request_, in_doubt in (("/preupload/", False), ("/commit/a%2Fcommit%2Fb", True)):
        world.proxy.add("POST", request_, LoseAnswer())
        error = run.fail()
        assert isinstance(error, TemporaryError)
        assert error.in_doubt is in_doubt
    run.push()
    assert remote.files(world.api, world.repo_id, revision="a/commit/b") == world.on_disk()
