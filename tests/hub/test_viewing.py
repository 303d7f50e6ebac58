"""TensorBoard in a notebook, on a logdir or on a followed repo or bucket."""

from __future__ import annotations

import importlib
import sys
import weakref
from typing import TYPE_CHECKING

import pytest

from events import wait_until
from hf_summary_writer import HFSummaryWriter, view
from hub.test_bucket import needs_a_client_for_buckets

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import HfApi

SECONDS = 30.0
EVENTS = "run/events.out.tfevents.1.host"


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect TensorBoard's arguments instead of starting it."""
    shown: list[str] = []
    monkeypatch.setattr(importlib.import_module("tensorboard.notebook"), "start", shown.append)
    monkeypatch.setenv("TENSORBOARD_BINARY", "none")
    return shown


def test_a_writer_shows_its_logdir_with_all_logged_events(
    api: HfApi, repo_id: str, tmp_path: Path, shown: list[str]
) -> None:
    with HFSummaryWriter(repo_id, logdir=tmp_path / "my run", hf_api=api, commit_every=60) as writer:
        writer.add_scalar("loss", 1.0, 1)
        writer.view()
        [file] = (tmp_path / "my run").glob("*.tfevents.*")
        assert b"loss" in file.read_bytes()
    assert shown[0].startswith(f"--logdir '{tmp_path}/my run' ")


@needs_a_client_for_buckets
def test_a_bucket_is_shown_and_followed_until_it_is_closed(
    api: HfApi, repo_id: str, tmp_path: Path, shown: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    api.create_bucket(repo_id)
    api.batch_bucket_files(repo_id, add=[(b"1", EVENTS)])
    followed = view(f"hf://buckets/{repo_id}", folder=tmp_path / "copy", hf_api=api, refresh=0.1)
    copy = tmp_path / "copy" / EVENTS
    assert (copy.read_bytes(), len(shown)) == (b"1", 1)
    api.batch_bucket_files(repo_id, add=[(b"12", EVENTS)])
    wait_until(lambda: copy.read_bytes() == b"12", SECONDS)
    api.delete_bucket(repo_id)
    wait_until(lambda: "could not be read" in caplog.text, SECONDS)
    followed.close()
    assert repo_id in repr(followed)


def test_without_a_folder_the_copy_is_temporary(api: HfApi, repo_id: str, shown: list[str]) -> None:
    api.create_repo(repo_id)
    followed = view(repo_id, hf_api=api)
    assert followed.folder.is_dir()
    assert str(followed.folder) in shown[0]
    followed.close()


def test_without_tensorboard_nothing_is_downloaded(
    api: HfApi, repo_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.create_repo(repo_id)
    api.upload_file(path_or_fileobj=b"1", path_in_repo=EVENTS, repo_id=repo_id)
    monkeypatch.setitem(sys.modules, "tensorboard.notebook", None)
    with pytest.raises(ImportError, match="this needs TensorBoard: pip install"):
        view(repo_id, folder=tmp_path / "copy", hf_api=api)
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("refresh", [0, -1])
def test_the_refresh_interval_must_be_positive(refresh: float) -> None:
    with pytest.raises(ValueError, match="refresh must be"):
        view("user/run", refresh=refresh)


def test_a_repeated_view_shows_the_same_copy(api: HfApi, repo_id: str, shown: list[str]) -> None:
    api.create_repo(repo_id)
    first = view(repo_id, hf_api=api)
    again = view(repo_id, hf_api=api)
    assert again is first
    assert shown == [shown[0]] * 2
    first.close()
    other = view(repo_id, hf_api=api)
    other.close()
    assert other.folder != first.folder


@pytest.mark.usefixtures("shown")
def test_a_closed_view_is_freed(api: HfApi, repo_id: str) -> None:
    api.create_repo(repo_id)
    followed = view(repo_id, hf_api=api, refresh=0.1)
    known = weakref.ref(followed)
    followed.close()
    del followed
    wait_until(lambda: known() is None, SECONDS)


@pytest.mark.usefixtures("shown")
def test_a_relative_folder_depends_on_the_working_directory(
    api: HfApi, repo_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.create_repo(repo_id)
    views = []
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        views.append(view(repo_id, hf_api=api, folder="copy"))
    for followed in views:
        followed.close()
    assert [followed.folder for followed in views] == [tmp_path / "a" / "copy", tmp_path / "b" / "copy"]


@pytest.mark.usefixtures("shown")
def test_a_folder_of_a_wrong_type_is_a_type_error(api: HfApi, repo_id: str) -> None:
    with pytest.raises(TypeError, match="folder"):
        view(repo_id, hf_api=api, folder=["copy"])  # type: ignore[arg-type]
