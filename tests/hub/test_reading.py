"""Reading scalars from a repo or bucket downloads only the needed event files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import huggingface_hub
import pytest
from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import HfHubHTTPError

from faults.proxy import Answer, FaultProxy
from hf_summary_writer import HFSummaryWriter, read
from hub.test_bucket import needs_a_client_for_buckets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

pytestmark = pytest.mark.client  # the client makes the listings and URLs

TYPES = ["model", "dataset", "space", pytest.param("bucket", marks=needs_a_client_for_buckets)]


def train(api: HfApi, repo_id: str, logdir: Path, steps: int = 3, **where: Any) -> None:
    with HFSummaryWriter(repo_id, logdir, hf_api=api, commit_every=60, **where) as writer:
        for step in range(steps):
            writer.add_scalar("loss", 1 / (step + 1), step)
            writer.add_scalar("lr", 0.5, step)


@pytest.mark.parametrize("repo_type", TYPES)
def test_scalars_are_read_from_repos_of_all_types_and_buckets(
    api: HfApi, repo_id: str, tmp_path: Path, repo_type: str
) -> None:
    train(api, repo_id, tmp_path / "first", repo_type=repo_type)
    local = read(tmp_path / "first", "loss")["."]["loss"]
    uri = f"hf://{repo_type}s/{repo_id}"
    for source, options, run in (
        (repo_id, {"repo_type": repo_type}, "tensorboard/first"),
        (uri, {}, "tensorboard/first"),
        (f"{uri}/tensorboard", {}, "first"),
        (f"{uri}/tensorboard/first", {}, "."),
    ):
        found = read(source, "loss", hf_api=api, **options)
        assert list(found) == [run]
        assert list(found[run]) == ["loss"]
        assert [column.tolist() for column in found[run]["loss"]] == [column.tolist() for column in local]


def test_only_files_of_selected_runs_are_downloaded(api: HfApi, hub: HubProcess, repo_id: str, tmp_path: Path) -> None:
    for name in ("first", "second"):
        train(api, repo_id, tmp_path / name)
    second = sum(path.stat().st_size for path in (tmp_path / "second").glob("*.tfevents.*"))
    hub.reset_stats()
    found = read(repo_id, "loss", runs="*/second", hf_api=api)
    assert list(found) == ["tensorboard/second"]
    assert hub.stats.download.sent == second


def test_a_kept_copy_is_updated_with_new_data(api: HfApi, repo_id: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    train(api, repo_id, tmp_path / "first", steps=2)
    assert read(repo_id, "loss", folder=copy, hf_api=api)["tensorboard/first"]["loss"].steps.tolist() == [0, 1]
    train(api, repo_id, tmp_path / "first", steps=4)
    steps = read(repo_id, "loss", folder=copy, hf_api=api)["tensorboard/first"]["loss"].steps.tolist()
    assert steps == [0, 0, 1, 1, 2, 3]


def test_a_damaged_file_of_a_repo_is_named_by_its_path_there(
    api: HfApi, repo_id: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(api, repo_id, tmp_path / "run")
    path = "tensorboard/bad/events.out.tfevents.1.host"
    api.upload_file(path_or_fileobj=b"x" * 100, path_in_repo=path, repo_id=repo_id)
    caplog.clear()
    assert list(read(repo_id, hf_api=api)) == ["tensorboard/run"]
    (line,) = (record.getMessage() for record in caplog.records if record.name == "hf_summary_writer")
    assert line == f"'{path}' of {repo_id} is damaged in 1 place; the data there was skipped"


def test_a_local_folder_takes_precedence_over_a_repo_of_its_name(
    api: HfApi, repo_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(api, repo_id, tmp_path / "first", repo_type="dataset")
    monkeypatch.chdir(tmp_path)
    with HFSummaryWriter(repo_id, repo_id, hf_api=api, write_to_disk=False):
        pass
    (tmp_path / repo_id).mkdir(parents=True)
    with pytest.raises(LookupError, match=f"^{repo_id} has no event files"):
        read(repo_id, hf_api=api)
    assert list(read(repo_id, repo_type="dataset", hf_api=api)) == ["tensorboard/first"]
    assert list(read(f"hf://datasets/{repo_id}", hf_api=api)) == ["tensorboard/first"]


def test_scalars_are_read_from_a_branch(api: HfApi, repo_id: str, tmp_path: Path) -> None:
    train(api, repo_id, tmp_path / "first", repo_revision="trials")
    assert list(read(repo_id, revision="trials", hf_api=api)) == ["tensorboard/first"]
    with pytest.raises(LookupError, match="has no event files"):
        read(repo_id, hf_api=api)


def test_a_missing_repo_run_or_tag_is_an_error(api: HfApi, repo_id: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"there is no folder '{repo_id}' .* '{repo_id}' is no model at"):
        read(repo_id, hf_api=api)
    with pytest.raises(FileNotFoundError, match=f"^'{repo_id}' is no dataset at"):
        read(f"hf://datasets/{repo_id}", hf_api=api)
    train(api, repo_id, tmp_path / "first")
    with pytest.raises(FileNotFoundError, match=f"^{repo_id} has no branch, tag or commit 'trials'"):
        read(repo_id, revision="trials", hf_api=api)
    with pytest.raises(LookupError, match=f"^hf://{repo_id}/other has no event files"):
        read(f"hf://{repo_id}/other", hf_api=api)
    with pytest.raises(LookupError, match="has no run 'first': there are 'tensorboard/first'"):
        read(repo_id, runs="first", hf_api=api)
    with pytest.raises(LookupError, match="has no tag 'los': there are 'loss'"):
        read(repo_id, "los", hf_api=api)


def test_file_names_outside_the_folder_are_left_out(
    api: HfApi, repo_id: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(api, repo_id, tmp_path / "first")
    odd = "c:/events.out.tfevents.9.host"
    api.create_commit(repo_id, [CommitOperationAdd(odd, b"x")], commit_message="Add")
    assert list(read(repo_id, hf_api=api)) == ["tensorboard/first"]
    assert any(odd in message for message in caplog.messages)


@needs_a_client_for_buckets
def test_a_missing_bucket_is_named(api: HfApi, repo_id: str) -> None:
    for source in (f"hf://buckets/{repo_id}", f"hf://buckets/{repo_id}/sweep"):
        with pytest.raises(FileNotFoundError, match=f"^'{repo_id}' is no bucket at"):
            read(source, hf_api=api)


def test_a_kept_copy_returns_only_runs_of_the_repo(api: HfApi, repo_id: str, tmp_path: Path) -> None:
    copy, other = tmp_path / "copy", f"{repo_id}-other"
    for place, run in ((repo_id, "first"), (repo_id, "second"), (other, "third")):
        train(api, place, tmp_path / run)
    assert list(read(repo_id, folder=copy, hf_api=api)) == ["tensorboard/first", "tensorboard/second"]
    assert list(read(other, folder=copy, hf_api=api)) == ["tensorboard/third"]
    api.delete_folder("tensorboard/first", repo_id)
    assert list(read(repo_id, folder=copy, hf_api=api)) == ["tensorboard/second"]


def test_a_name_without_a_namespace_is_a_repo_of_the_user(api: HfApi, repo_id: str, tmp_path: Path) -> None:
    name = repo_id.partition("/")[2]
    train(api, f"{api.whoami()['name']}/{name}", tmp_path / "first")
    assert list(read(name, hf_api=api)) == ["tensorboard/first"]


def test_a_refused_token_is_told_from_a_missing_repo(
    api: HfApi, hub: HubProcess, client: Callable[..., HfApi], repo_id: str, tmp_path: Path
) -> None:
    train(api, repo_id, tmp_path / "first", repo_private=True)
    with pytest.raises(HfHubHTTPError) as caught:
        read(repo_id, hf_api=client(hub, token="hf_wrong"))
    assert not isinstance(caught.value, FileNotFoundError)


@needs_a_client_for_buckets
def test_an_old_client_reads_no_bucket(api: HfApi, repo_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "__version__", "1.4.0")
    with pytest.raises(ValueError, match="or later"):
        read(f"hf://buckets/{repo_id}", hf_api=api)


def test_an_odd_answer_is_an_error_of_the_system(hub: HubProcess, client: Callable[..., HfApi], repo_id: str) -> None:
    with FaultProxy(hub) as portal:
        portal.add("*", "/api/", Answer(200, body=b"<html>log in</html>"))
        with pytest.raises(OSError, match="could not be read from"):
            read(repo_id, hf_api=client(portal))


def test_a_file_that_cannot_be_downloaded_is_an_error(
    api: HfApi, hub: HubProcess, client: Callable[..., HfApi], repo_id: str, tmp_path: Path
) -> None:
    train(api, repo_id, tmp_path / "first")
    with FaultProxy(hub) as portal:
        portal.add("*", "/resolve/", Answer(403))
        with pytest.raises(OSError, match="could not be downloaded"):
            read(repo_id, hf_api=client(portal))
