"""Modes, links, status and the model card of schedulers and writers."""

from __future__ import annotations

import logging
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import HfApi

import remote
from hf_summary_writer import CommitScheduler, HFSummaryWriter
from hf_summary_writer.events import EventWriter
from hf_summary_writer.push import Phase, sync
from hf_summary_writer.push.status import inspect_folder

if TYPE_CHECKING:
    from pathlib import Path

    from hf_summary_writer.push.status import Status
    from hub_process import HubProcess

pytestmark = pytest.mark.client  # links, cards and errors depend on the client

SECONDS = 60.0
HOUR = 60.0  # minutes
NOWHERE = HfApi(endpoint="http://127.0.0.1:9", token="hf_none")


@pytest.fixture
def logdir(tmp_path: Path) -> Path:
    return tmp_path / "run-1"


def _card(title: str) -> str:
    return f"---\nlicense: mit\n---\n# {title}\n"


def surveyed(scheduler: CommitScheduler) -> Status:
    return inspect_folder(scheduler.folder_path, scheduler._config).status


def test_the_links_point_to_the_metrics_tab_and_to_the_folder(
    api: HfApi, repo_id: str, logdir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.INFO, "hf_summary_writer"),
        HFSummaryWriter(repo_id.partition("/")[2], logdir=logdir, commit_every=HOUR, hf_api=api) as writer,
    ):
        assert writer.url is None
        for step in range(3):
            writer.add_scalar("loss", 1.0, step)
            writer.scheduler.trigger().result(SECONDS)
    full = writer.repo_id
    assert writer.url == f"{api.endpoint}/{full}/tensorboard"
    assert writer.scheduler.folder_url == f"{api.endpoint}/{full}/tree/main/tensorboard/run-1"
    for page in (writer.url, writer.scheduler.folder_url):
        with urllib.request.urlopen(str(page), timeout=SECONDS) as answer:  # noqa: S310
            assert answer.status == 200
    with_link = [record for record in caplog.records if str(writer.url) in record.getMessage()]
    assert [record.levelname for record in with_link] == ["INFO", "INFO"]


def test_the_url_of_a_dataset_points_to_its_files(api: HfApi, repo_id: str, tmp_path: Path) -> None:
    with CommitScheduler(
        repo_id=repo_id, folder_path=tmp_path, repo_type="dataset", revision="runs/1", path_in_repo="a b", hf_api=api
    ) as scheduler:
        assert scheduler.url == f"{api.endpoint}/datasets/{repo_id}/tree/runs%2F1/a%20b"
        scheduler.stop()


def test_the_url_points_to_the_metrics_tab_once_event_files_are_uploaded(
    api: HfApi, repo_id: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metrics, files = f"{api.endpoint}/{repo_id}/tensorboard", f"{api.endpoint}/{repo_id}/tree/main"
    caplog.set_level(logging.INFO, "hf_summary_writer")
    with CommitScheduler(repo_id=repo_id, folder_path=tmp_path, every=HOUR, hf_api=api) as scheduler:
        (tmp_path / "results.jsonl").write_text("{}")
        scheduler.trigger().result(SECONDS)
        assert scheduler.url == surveyed(scheduler).url == files
    assert metrics not in caplog.text
    with EventWriter(tmp_path / "run") as writer:
        writer.add_scalar("loss", 1.0, 1)
    with CommitScheduler(repo_id=repo_id, folder_path=tmp_path, every=HOUR, hf_api=api) as scheduler:
        scheduler.trigger().result(SECONDS)
        assert scheduler.url == surveyed(scheduler).url == metrics
        assert scheduler.folder_url == files


def test_the_status_shows_pending_files_and_the_last_commit(api: HfApi, repo_id: str, tmp_path: Path) -> None:
    before = time.time()
    with CommitScheduler(repo_id=repo_id, folder_path=tmp_path, every=HOUR, hf_api=api) as scheduler:
        scheduler.trigger().result(SECONDS)
        (tmp_path / "a.txt").write_bytes(b"123")
        first = scheduler.status()
        assert (first.pending.files, first.pending.bytes, first.commit) == (1, 3, None)
        assert first.pending.oldest is not None
        assert first.pending.oldest >= before - 3
        info = scheduler.trigger().result(SECONDS)
        assert info is not None
        then = scheduler.status()
    assert then.all_arrived
    assert then.phase is Phase.IDLE
    assert then.failure is None
    assert then.commit is not None
    assert (then.commit.oid, then.commit.url) == (info.oid, info.commit_url)
    assert then.as_dict()["pending"] == {"files": 0, "bytes": 0, "oldest": None, "refused": 0, "unlisted": 0}
    assert surveyed(scheduler) == then
    assert not list(tmp_path.rglob("*.status.json"))


@pytest.mark.parametrize("every", [HOUR, 1e300])
def test_an_error_is_in_the_status_of_all_processes_until_it_is_over(
    api: HfApi, repo_id: str, tmp_path: Path, every: float
) -> None:
    (tmp_path / "a.txt").write_bytes(b"1")
    broken = HfApi(endpoint=api.endpoint, token="hf_wrong_token")
    with CommitScheduler(
        repo_id=repo_id, folder_path=tmp_path, every=every, hf_api=broken, close_timeout=0
    ) as scheduler:
        assert isinstance(scheduler.trigger().exception(SECONDS), Exception)
        for status in (scheduler.status(), surveyed(scheduler)):
            assert status.phase is Phase.WAITING
            assert status.failure is not None
            assert status.failure.until is not None
            assert status.failure.until > time.time()
            shown = status.as_dict()
            assert shown["error"] == status.failure.error
            assert shown["waiting_until"] is not None
        broken.token = api.token
        assert scheduler.trigger().result(SECONDS) is not None
        assert scheduler.status().failure is None
        assert surveyed(scheduler).failure is None
        assert not list(tmp_path.rglob("*.status.json"))


def test_the_error_of_a_closed_scheduler_is_over_once_another_process_has_uploaded_the_rest(
    api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_bytes(b"1")
    broken = HfApi(endpoint=api.endpoint, token="hf_wrong_token")
    with CommitScheduler(repo_id=repo_id, folder_path=tmp_path, every=HOUR, hf_api=broken) as scheduler:
        assert isinstance(scheduler.trigger().exception(SECONDS), Exception)
    failure = surveyed(scheduler).failure
    assert failure is not None
    assert failure.until is None
    assert sync(tmp_path, scheduler._config, api).error is None
    assert surveyed(scheduler).all_arrived
    assert surveyed(scheduler).failure is None


def test_the_status_file_holds_no_token(repo_id: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"1")
    with CommitScheduler(
        repo_id=repo_id, folder_path=tmp_path, every=HOUR, hf_api=NOWHERE, close_timeout=0
    ) as scheduler:
        scheduler.trigger().exception(SECONDS)
    (file,) = tmp_path.rglob("*.status.json")
    assert "hf_none" not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("variable", [("HF_HUB_OFFLINE", "1"), ("HF_SUMMARY_WRITER_MODE", "offline")])
def test_offline_mode_makes_no_request_and_names_the_sync_command(
    hub: HubProcess,
    api: HfApi,
    repo_id: str,
    logdir: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variable: tuple[str, str],
) -> None:
    monkeypatch.setenv(*variable)
    before = hub.requests
    with (
        caplog.at_level(logging.INFO, "hf_summary_writer"),
        HFSummaryWriter(repo_id, logdir=logdir, hf_api=api) as writer,
    ):
        writer.add_scalar("loss", 1.0, 0)
        assert writer.scheduler.trigger().result(SECONDS) is None
    assert hub.requests == before
    assert caplog.records[-1].levelname == "WARNING"
    assert "hf-summary-writer sync" in caplog.records[-1].getMessage()
    assert writer.scheduler.status().phase is Phase.STOPPED
    assert writer.scheduler.status().pending.files == 1


def test_disabled_mode_pushes_nothing_and_logs_nothing(
    hub: HubProcess,
    api: HfApi,
    repo_id: str,
    logdir: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("HF_SUMMARY_WRITER_MODE", "disabled")
    before = hub.requests
    with (
        caplog.at_level(logging.DEBUG, "hf_summary_writer"),
        HFSummaryWriter(repo_id, logdir=logdir, hf_api=api) as writer,
    ):
        writer.add_scalar("loss", 1.0, 0)
        assert writer.scheduler.trigger().result(SECONDS) is None
    assert hub.requests == before
    assert caplog.records == []
    assert [path.name for path in logdir.iterdir() if "tfevents" not in path.name] == []
    assert len(list(logdir.iterdir())) == 1


def test_environment_variables_redirect_a_run(
    api: HfApi, repo_id: str, logdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_SUMMARY_WRITER_REPO_ID", repo_id)
    monkeypatch.setenv("HF_SUMMARY_WRITER_REVISION", "job-7")
    monkeypatch.setenv("HF_SUMMARY_WRITER_PATH_IN_REPO", "elsewhere")
    with HFSummaryWriter(logdir=logdir, hf_api=api) as writer:
        writer.add_scalar("loss", 1.0, 0)
    assert writer.scheduler.every == 5
    assert remote.files(api, repo_id, revision="job-7") == remote.under(logdir, "elsewhere/run-1")


def test_without_a_repo_the_error_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="HF_SUMMARY_WRITER_REPO_ID"):
        HFSummaryWriter(logdir=tmp_path / "new")
    with pytest.raises(TypeError, match="HF_SUMMARY_WRITER_REPO_ID"):
        CommitScheduler(folder_path=tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("repo_type", ["model", "dataset", "space"])
def test_a_new_repo_starts_with_a_card_in_its_first_commit(
    api: HfApi, repo_id: str, tmp_path: Path, repo_type: str
) -> None:
    (tmp_path / "a.txt").write_bytes(b"1")
    where: dict[str, Any] = {"repo_type": repo_type, "revision": "dev"}
    with CommitScheduler(repo_id=repo_id, folder_path=tmp_path, every=HOUR, hf_api=api, **where) as scheduler:
        info = scheduler.trigger().result(SECONDS)
        assert info is not None
        assert set(api.list_repo_files(repo_id, repo_type=repo_type, revision=info.oid)) >= {"README.md", "a.txt"}
        first = remote.card(api, repo_id, **where)
        assert first is not None
        assert "\ntags:\n- hf-summary-writer\n---\n" in first
        assert "tensorboard" not in first.lower()
        assert ("sdk: static" in first) == (repo_type == "space")
        assert "README.md" not in api.list_repo_files(repo_id, repo_type=repo_type)
        (tmp_path / "a.txt").write_bytes(b"12")
        scheduler.trigger().result(SECONDS)
    assert remote.card(api, repo_id, **where) == first
    titles = [commit.title for commit in api.list_repo_commits(repo_id, **where)]
    assert len(titles) == 3  # the Hub's initial commit and two of ours


def test_the_card_of_a_repo_with_logs_shows_how_to_read_them(api: HfApi, repo_id: str, logdir: Path) -> None:
    with HFSummaryWriter(repo_id, logdir=logdir, hf_api=api) as writer:
        writer.add_scalar("loss", 1.0, 1)
    card = remote.card(api, repo_id)
    assert card is not None
    assert "\ntags:\n- tensorboard\n- hf-summary-writer\n---\n" in card
    assert f"tensorboard --logdir {repo_id.partition('/')[2]}/tensorboard\n" in card


def test_an_existing_repo_gets_no_card(api: HfApi, repo_id: str, tmp_path: Path) -> None:
    api.create_repo(repo_id)
    (tmp_path / "a.txt").write_bytes(b"1")
    CommitScheduler(repo_id=repo_id, folder_path=tmp_path, hf_api=api).close()
    assert remote.card(api, repo_id) is None


def test_a_card_that_was_added_during_the_push_is_left_alone(api: HfApi, repo_id: str, tmp_path: Path) -> None:
    class Slow(HfApi):
        def preupload_lfs_files(self, *arguments: object, **options: object) -> None:
            api.upload_file(path_or_fileobj=_card("Theirs").encode(), path_in_repo="README.md", repo_id=repo_id)
            super().preupload_lfs_files(*arguments, **options)  # type: ignore[arg-type]

    (tmp_path / "a.txt").write_bytes(b"1")
    slow = Slow(endpoint=api.endpoint, token=api.token)
    CommitScheduler(repo_id=repo_id, folder_path=tmp_path, hf_api=slow).close()
    assert remote.card(api, repo_id) == _card("Theirs")


def test_a_readme_in_the_folder_is_the_card(api: HfApi, repo_id: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(_card("Mine").encode())
    CommitScheduler(repo_id=repo_id, folder_path=tmp_path, hf_api=api).close()
    assert remote.card(api, repo_id) == _card("Mine")


def test_the_card_can_be_turned_off(api: HfApi, repo_id: str, logdir: Path) -> None:
    with HFSummaryWriter(repo_id, logdir=logdir, hf_api=api, model_card=False) as writer:
        writer.add_scalar("loss", 1.0, 0)
    assert remote.card(api, repo_id) is None
    assert len(remote.files(api, repo_id)) == 1
