"""The Hub says no: to the token, to the repo, to the moment, to a file."""

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
from hf_summary_writer.errors import ActionNeededError, RepoGoneError, TemporaryError
from hf_summary_writer.folder.ledger import ledgers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from faults.conftest import Run, Watch
    from faults.proxy import FaultProxy
    from hub_process import HubProcess

pytestmark = [pytest.mark.faults, pytest.mark.client]  # the client raises the errors

FOREVER = float("inf")


@pytest.fixture
def token_file() -> Iterator[Path]:
    """Return where `hf auth login` puts the token of this machine."""
    path = Path(constants.HF_TOKEN_PATH)
    path.parent.mkdir(parents=True, exist_ok=True)
    yield path
    path.unlink(missing_ok=True)


@pytest.mark.faults("N1")
def test_a_run_without_access_goes_on_says_so_once_and_resumes_with_the_token_that_is_stored_meanwhile(
    schedule: Callable[..., Run],
    proxy: FaultProxy,
    proxied: HfApi,
    repo_id: str,
    folder: Path,
    said: Callable[[int], list[str]],
    token_file: Path,
) -> None:
    run = schedule(hf_api=HfApi(endpoint=proxy.endpoint), every=OFTEN)
    for number in range(3):
        (folder / f"{number}.txt").write_bytes(b"1")
        assert isinstance(run.next_error(), ActionNeededError)
    assert proxy.requests == []
    [warning] = said(logging.WARNING)
    assert repo_id in warning
    assert "hf auth login" in warning
    token_file.write_text("hf_" + "x" * 30)
    while not proxy.requests:
        assert isinstance(run.next_error(), ActionNeededError)
    assert said(logging.WARNING) == [warning]
    token_file.write_text(proxy.token)
    run.next_commit()
    run.settle()
    assert remote.files(proxied, repo_id) == remote.under(folder, "", "*")
    assert len([line for line in said(logging.INFO) if "again, after" in line]) == 1


@pytest.mark.parametrize("status", [401, 402, 403])
@pytest.mark.parametrize("request_", ["/repos/create", "/preupload/", "/commit/"])
def test_a_token_that_may_not_write_is_named_with_its_repo(
    schedule: Callable[..., Run],
    proxy: FaultProxy,
    repo_id: str,
    folder: Path,
    said: Callable[[int], list[str]],
    status: int,
    request_: str,
) -> None:
    proxy.add("POST", request_, Answer(status, {"X-Error-Message": "not with this token"}))
    (folder / "a.bin").write_bytes(b"1")
    run = schedule()
    assert isinstance(run.next_error(), ActionNeededError)
    [warning] = said(logging.WARNING)
    assert repo_id in warning
    assert "token" in warning
    assert ("hf auth login" if status == 401 else "use one with write access") in warning
    run.settle()
    # Looked at once per interval, not ever more often.
    assert HOUR * 60 - 30 < run.scheduler._loop.state.seconds <= HOUR * 60
    assert run.push() is not None


@pytest.mark.faults("N2")
def test_a_repo_that_is_deleted_is_not_created_again_and_gets_everything_once_it_is_back(
    schedule: Callable[..., Run],
    hub: HubProcess,
    proxied: HfApi,
    repo_id: str,
    folder: Path,
    said: Callable[[int], list[str]],
) -> None:
    (folder / "early.bin").write_bytes(os.urandom(1000))
    run = schedule()
    run.next_commit()
    run.settle()
    proxied.delete_repo(repo_id)
    hub.reset_stats()
    for number in range(3):
        (folder / f"{number}.bin").write_bytes(os.urandom(1000))
        assert isinstance(run.fail(), RepoGoneError)
    [error] = said(logging.WARNING)
    assert said(logging.ERROR) == [error]
    assert repo_id in error
    assert "not created again" in error
    assert not [request for request in hub.requests if request.path == "/api/repos/create"]
    assert len(remote.under(folder, "", "*")) == 4
    proxied.create_repo(repo_id)
    assert run.push() is not None
    assert remote.files(proxied, repo_id) == remote.under(folder, "", "*")


def test_all_schedulers_of_a_process_start_over_when_one_of_them_finds_the_repo_gone(
    schedule: Callable[..., Run], proxied: HfApi, proxy: FaultProxy, repo_id: str, tmp_path: Path
) -> None:
    folders = [tmp_path / name for name in ("busy", "idle", "later")]
    for folder in folders:
        folder.mkdir()
        (folder / "early.bin").write_bytes(os.urandom(1000))
    busy, idle, ended = [schedule(folder_path=folder, path_in_repo=folder.name) for folder in folders]
    for run in (busy, idle, ended):
        run.next_commit()
        run.settle()
    ended.scheduler.close()
    proxied.delete_repo(repo_id)
    (folders[0] / "late.bin").write_bytes(b"1")
    assert isinstance(busy.fail(), RepoGoneError)
    proxied.create_repo(repo_id)
    assert busy.push() is not None
    assert idle.push() is not None
    later = schedule(folder_path=folders[2], path_in_repo="later")
    later.next_commit()
    later.settle()
    expected = {path: body for folder in folders for path, body in remote.under(folder, folder.name, "*").items()}
    assert len(expected) == 4
    assert remote.files(proxied, repo_id) == expected
    before = len(proxy.requests)
    assert [run.push() for run in (busy, idle, later)] == [None] * 3
    assert len(proxy.requests) == before


def test_a_push_that_runs_while_another_one_finds_the_repo_gone_sends_everything_too(
    schedule: Callable[..., Run], proxied: HfApi, proxy: FaultProxy, repo_id: str, tmp_path: Path
) -> None:
    """Its commit lands in the repo that came back, so that it finds nothing gone itself."""
    folders = [tmp_path / name for name in ("slow", "other")]
    for folder in folders:
        folder.mkdir()
        (folder / "early.bin").write_bytes(os.urandom(1000))
    slow, other = [schedule(folder_path=folder, path_in_repo=folder.name) for folder in folders]
    for run in (slow, other):
        run.next_commit()
        run.settle()
    for folder in folders:
        (folder / "late.txt").write_bytes(b"1")
    before = len(proxy.requests)
    proxy.add("POST", "/commit/", Hold())
    coming = slow.scheduler.trigger()
    wait_until(lambda: any(seen.action == Hold() for seen in proxy.requests[before:]))
    proxied.delete_repo(repo_id)
    assert isinstance(other.fail(), RepoGoneError)
    proxied.create_repo(repo_id)
    proxy.clear()
    assert coming.result(SECONDS) is not None
    assert other.push() is not None
    expected = {path: body for folder in folders for path, body in remote.under(folder, folder.name, "*").items()}
    assert remote.files(proxied, repo_id) == expected


def test_a_process_that_begins_while_the_repo_is_gone_sends_everything_once_it_is_back(
    schedule: Callable[..., Run], proxied: HfApi, repo_id: str, folder: Path
) -> None:
    (folder / "early.bin").write_bytes(b"1")
    first = schedule()
    first.next_commit()
    first.settle()
    proxied.delete_repo(repo_id)
    (folder / "late.bin").write_bytes(b"2")
    assert isinstance(first.fail(), RepoGoneError)
    first.scheduler.close()
    [ledger] = ledgers_of(folder)  # as another process reads it
    assert ledger.entries == {}
    proxied.create_repo(repo_id)
    schedule().scheduler.close()
    assert remote.files(proxied, repo_id) == remote.under(folder, "", "*")


@pytest.mark.faults("N15")
def test_a_branch_that_is_deleted_is_made_again_and_gets_everything(
    schedule: Callable[..., Run],
    proxied: HfApi,
    proxy: FaultProxy,
    repo_id: str,
    folder: Path,
    said: Callable[[int], list[str]],
) -> None:
    (folder / "a.bin").write_bytes(os.urandom(1000))
    run = schedule(revision="runs", squash_history=True)
    run.next_commit()
    run.settle()
    proxied.delete_branch(repo_id, branch="runs")
    (folder / "b.bin").write_bytes(os.urandom(1000))
    assert run.push() is not None
    assert remote.files(proxied, repo_id, revision="runs") == remote.under(folder, "", "*")
    assert len(remote.commits(proxied, repo_id, revision="runs")) == 1
    [warning] = said(logging.WARNING)
    assert repo_id in warning
    assert "made again" in warning
    before = len(proxy.requests)
    assert run.push() is None
    assert len(proxy.requests) == before


@pytest.mark.parametrize("request_", ["/commit/", "/super-squash/"])
def test_a_branch_that_is_deleted_in_the_middle_of_a_shared_push_costs_nobody_what_arrived(
    schedule: Callable[..., Run], proxied: HfApi, proxy: FaultProxy, repo_id: str, tmp_path: Path, request_: str
) -> None:
    folders = [tmp_path / name for name in ("one", "two", "three")]
    runs = []
    for folder in folders:
        folder.mkdir()
        (folder / "early.bin").write_bytes(os.urandom(1000))
        runs.append(schedule(folder_path=folder, path_in_repo=folder.name, revision="runs", squash_history=True))
    for run in runs:
        run.next_commit()
        run.settle()
    for folder in folders:
        (folder / "late.bin").write_bytes(os.urandom(1000))
    before = len(proxy.requests)
    proxy.add("POST", request_, Hold())
    futures = [run.scheduler.trigger() for run in runs]
    wait_until(lambda: any(seen.action == Hold() for seen in proxy.requests[before:]))
    proxied.delete_branch(repo_id, branch="runs")
    proxy.clear()
    for future in futures:
        assert future.exception(SECONDS) is None
    expected = {path: body for folder in folders for path, body in remote.under(folder, folder.name, "*").items()}
    assert len(expected) == 6
    assert remote.files(proxied, repo_id, revision="runs") == expected


def test_a_process_that_dies_while_the_branch_is_made_again_leaves_all_of_it_to_the_next_one(
    schedule: Callable[..., Run], proxied: HfApi, proxy: FaultProxy, repo_id: str, folder: Path
) -> None:
    (folder / "early.bin").write_bytes(b"1")
    first = schedule(revision="runs")
    first.next_commit()
    first.settle()
    proxied.delete_branch(repo_id, branch="runs")
    (folder / "late.bin").write_bytes(b"2")
    proxy.add("POST", "/branch/", LoseAnswer())
    assert isinstance(first.fail(), TemporaryError)
    first.scheduler.stop()
    [ledger] = ledgers_of(folder)  # as another process reads it
    assert ledger.entries == {}
    schedule(revision="runs").scheduler.close()
    assert remote.files(proxied, repo_id, revision="runs") == remote.under(folder, "", "*")


@pytest.mark.faults("N3")
def test_a_repo_that_exists_is_fine_and_one_that_is_busy_is_asked_again(
    schedule: Callable[..., Run],
    proxy: FaultProxy,
    proxied: HfApi,
    repo_id: str,
    folder: Path,
    said: Callable[[int], list[str]],
) -> None:
    proxied.create_repo(repo_id)
    before = len(proxy.requests)
    busy = b'{"error": "Another conflicting operation is in progress"}'
    proxy.add("POST", "/repos/create", Answer(409, body=busy), times=2)
    for status in (409, 412, 423):
        proxy.add("POST", "/commit/", Answer(status))
    (folder / "a.bin").write_bytes(os.urandom(1000))
    run = schedule(every=OFTEN)
    run.next_commit()
    run.settle()
    assert remote.files(proxied, repo_id) == remote.under(folder, "", "*")
    assert len(remote.commits(proxied, repo_id)) == 2
    asked = [seen.path.rsplit("/", 2)[-2] for seen in proxy.requests[before:] if seen.method == "POST"]
    assert asked.count("repos") == 3
    # Planned anew each time: the Hub is asked what it has before it is asked to commit.
    assert [each for each in asked if each in ("preupload", "commit")] == ["preupload", "commit"] * 4
    errors = [run.next_error() for _ in range(5)]
    assert all(isinstance(error, TemporaryError) and not error.in_doubt for error in errors)
    assert len(said(logging.WARNING)) == 1


@pytest.mark.faults("N4")
@pytest.mark.parametrize("status", [400, 413, 422])
def test_one_file_that_the_hub_refuses_is_named_and_the_others_arrive(
    schedule: Callable[..., Run],
    proxy: FaultProxy,
    proxied: HfApi,
    repo_id: str,
    folder: Path,
    said: Callable[[int], list[str]],
    status: int,
) -> None:
    for number in range(9):
        (folder / f"{number}.bin").write_bytes(os.urandom(100))
    refused = Answer(status, {"X-Error-Message": "this one not"})
    proxy.add("POST", "/commit/", refused, FOREVER, body=b'"path": "5.bin"')
    run = schedule()
    run.settle()
    expected = remote.under(folder, "", "*")
    del expected["5.bin"]
    assert remote.files(proxied, repo_id) == expected
    [warning] = said(logging.WARNING)
    assert "5.bin" in warning
    assert "this one not" in warning
    # It is left alone until it changes, tried again then, and not named again.
    asked = len(proxy.requests)
    assert run.push() is None
    assert len(proxy.requests) == asked
    (folder / "5.bin").write_bytes(os.urandom(200))
    run.push()
    assert len(proxy.requests) > asked
    assert said(logging.WARNING) == [warning]
    proxy.clear()
    (folder / "5.bin").write_bytes(os.urandom(300))
    assert run.push() is not None
    assert remote.files(proxied, repo_id) == remote.under(folder, "", "*")


@pytest.mark.faults("N4")
def test_text_that_the_hub_refuses_costs_what_was_committed_before_it_no_second_commit(
    schedule: Callable[..., Run], proxy: FaultProxy, proxied: HfApi, repo_id: str, folder: Path
) -> None:
    for number in range(4):
        (folder / f"{number}.jsonl").write_bytes(b'{"loss": 1}\n' * 250_000)  # 3 MB: two of them fit into a commit
    proxy.add("POST", "/commit/", Answer(400, {"X-Error-Message": "this one not"}), FOREVER, body=b'"path": "3.jsonl"')
    run = schedule()
    run.settle()
    expected = remote.under(folder, "", "*")
    del expected["3.jsonl"]
    assert remote.files(proxied, repo_id) == expected
    assert len([seen for seen in proxy.requests if "/commit/" in seen.path and seen.action == Pass()]) == 2


def test_a_card_that_the_hub_does_not_accept_holds_up_nothing_else(
    schedule: Callable[..., Run], proxied: HfApi, repo_id: str, folder: Path, said: Callable[[int], list[str]]
) -> None:
    (folder / "README.md").write_text("---\ntags: {\n---\n")
    (folder / "a.bin").write_bytes(b"1")
    run = schedule()
    run.settle()
    assert set(remote.files(proxied, repo_id)) == {"a.bin"}
    assert "README.md" in said(logging.WARNING)[0]
    (folder / "README.md").write_text("---\ntags: [a]\n---\n")
    assert run.push() is not None
    assert remote.files(proxied, repo_id) == remote.under(folder, "", "*")


def test_a_hub_that_refuses_everything_is_not_taken_for_many_bad_files(
    schedule: Callable[..., Run], proxy: FaultProxy, folder: Path, said: Callable[[int], list[str]]
) -> None:
    proxy.add("POST", "/commit/", Answer(400, {"X-Error-Message": "closed for today"}), FOREVER)
    for number in range(30):
        (folder / f"{number}.bin").write_bytes(b"%d" % number)
    run = schedule()
    assert isinstance(run.next_error(), ActionNeededError)
    assert len([seen for seen in proxy.requests if "/commit/" in seen.path]) < 15
    proxy.clear()
    assert run.push() is not None
    run.scheduler.close()
    assert len(said(logging.WARNING)) < 8


@pytest.mark.faults("N13")
def test_a_file_that_the_repos_gitignore_drops_is_named_and_does_not_count_as_arrived(
    schedule: Callable[..., Run],
    hub: HubProcess,
    proxied: HfApi,
    repo_id: str,
    folder: Path,
    said: Callable[[int], list[str]],
) -> None:
    proxied.create_repo(repo_id)
    proxied.upload_file(path_or_fileobj=b"*.tmp.bin\n", path_in_repo=".gitignore", repo_id=repo_id)
    (folder / "a.bin").write_bytes(b"1")
    (folder / "b.tmp.bin").write_bytes(b"2")
    run = schedule()
    run.settle()
    assert set(remote.files(proxied, repo_id)) == {".gitignore", "a.bin"}
    [warning] = said(logging.WARNING)
    assert "b.tmp.bin" in warning
    assert ".gitignore" in warning
    assert "b.tmp.bin" not in run.scheduler._pusher.ledger.entries
    hub.reset_stats()
    assert run.push() is None
    assert hub.requests == []
    # It is asked about again, without a word, when it changes.
    (folder / "b.tmp.bin").write_bytes(b"2 and more")
    assert run.push() is None
    assert [request.path for request in hub.requests if "/preupload/" in request.path]
    assert said(logging.WARNING) == [warning]
    proxied.upload_file(path_or_fileobj=b"", path_in_repo=".gitignore", repo_id=repo_id)
    (folder / "b.tmp.bin").write_bytes(b"2 and even more")
    assert run.push() is not None
    assert remote.files(proxied, repo_id)["b.tmp.bin"] == b"2 and even more"


@pytest.mark.faults("N4", "N13")
@pytest.mark.parametrize("why", ["the Hub refuses it", "the repo ignores it"])
@pytest.mark.parametrize("until_the_end", [True, False])
def test_what_the_hub_did_not_take_is_tried_once_more_at_the_end_and_does_not_count_as_arrived(
    schedule: Callable[..., Run],
    proxy: FaultProxy,
    proxied: HfApi,
    repo_id: str,
    folder: Path,
    said: Callable[[int], list[str]],
    why: str,
    until_the_end: bool,
) -> None:
    proxied.create_repo(repo_id)
    if why == "the repo ignores it":
        proxied.upload_file(path_or_fileobj=b"x.tmp\n", path_in_repo=".gitignore", repo_id=repo_id)
    else:
        proxy.add("POST", "/commit/", Answer(400), FOREVER, body=b'"path": "x.tmp"')
    (folder / "a.bin").write_bytes(b"123")
    (folder / "x.tmp").write_bytes(b"12345")
    run = schedule(ignore_patterns="*.mine")
    run.settle()
    (folder / "b.bin").write_bytes(b"1")
    (folder / "c.mine").write_bytes(b"not meant")
    run.push()
    assert [(each.files, each.bytes) for each in (run.next_commit(), run.next_commit())] == [(1, 3), (1, 1)]
    status = run.scheduler.status()
    assert (status.pending.files, status.pending.refused, status.pending.bytes) == (0, 1, 5)
    assert not status.all_arrived
    if not until_the_end:
        proxy.clear()
        if why == "the repo ignores it":
            proxied.delete_file(".gitignore", repo_id=repo_id)
    (folder / "d.bin").write_bytes(b"1")
    run.scheduler.close()
    arrived = set(remote.files(proxied, repo_id)) - {".gitignore"}
    assert run.scheduler.status().all_arrived == (not until_the_end)
    if until_the_end:
        assert arrived == {"a.bin", "b.bin", "d.bin"}
        [_, warning] = said(logging.WARNING)
        assert warning == said(logging.INFO)[-1]
        assert "1 files (0.0 MB)" in warning
        assert "hf-summary-writer sync" in warning
    else:
        assert arrived == {"a.bin", "b.bin", "d.bin", "x.tmp"}
        assert said(logging.INFO)[-1].startswith("All of")


@pytest.mark.parametrize("token", ["hf_sec ret", "hf_sec\x00ret", "hf_sécret"], ids=["space", "control", "accent"])
def test_a_stored_token_that_is_none_is_refused_without_being_shown(
    schedule: Callable[..., Run],
    proxy: FaultProxy,
    folder: Path,
    said: Callable[[int], list[str]],
    token_file: Path,
    watch: Watch,
    token: str,
) -> None:
    watch.token = token[:6]
    token_file.write_text(token)
    (folder / "a.bin").write_bytes(b"1")
    run = schedule(hf_api=HfApi(endpoint=proxy.endpoint))
    assert isinstance(run.next_error(), ActionNeededError)
    assert "not shown" in said(logging.WARNING)[0]
    assert proxy.requests == []


def test_white_space_around_a_stored_token_does_no_harm(
    schedule: Callable[..., Run], proxy: FaultProxy, proxied: HfApi, repo_id: str, folder: Path, token_file: Path
) -> None:
    token_file.write_text(f" {proxy.token}\r\n")
    (folder / "a.bin").write_bytes(b"1")
    run = schedule(hf_api=HfApi(endpoint=proxy.endpoint))
    run.next_commit()
    assert remote.files(proxied, repo_id) == {"a.bin": b"1"}
