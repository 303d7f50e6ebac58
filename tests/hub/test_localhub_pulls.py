"""Pull requests on the local Hub, through the real client."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from huggingface_hub.errors import HfHubHTTPError

from hf_summary_writer.localhub import LocalHub, User
from hub.content import LOG, noise, push
from hub.gitcheck import assert_sound
from hub.wire import send

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

pytestmark = pytest.mark.client


def test_a_commit_opens_a_pull_request_that_can_be_merged(hub: HubProcess, api: HfApi, repo: str) -> None:
    push(api, repo, {"old.txt": b"old"})
    log = noise(1)
    info = push(api, repo, {LOG: log, "old.txt": None}, create_pr=True)
    assert info.pr_url == f"{hub.endpoint}/{repo}/discussions/1"
    assert info.pr_revision == "refs/pr/1"
    assert LOG not in api.list_repo_files(repo)
    assert LOG in api.list_repo_files(repo, revision="refs/pr/1")
    push(api, repo, {"more.txt": b"more"}, revision="refs/pr/1")
    push(api, repo, {"meanwhile.txt": b"main"})
    api.merge_pull_request(repo, 1, comment="Thanks")
    files = set(api.list_repo_files(repo))
    assert {LOG, "more.txt", "meanwhile.txt"} < files
    assert "old.txt" not in files
    assert send(hub, "GET", f"/{repo}/resolve/main/{LOG}").body == log
    newest = api.list_repo_commits(repo)[0]
    assert newest.title == "Change (#1)"
    details = api.get_discussion_details(repo, 1)
    assert (details.status, details.merge_commit_oid) == ("merged", newest.commit_id)
    assert [event.type for event in details.events if event.type == "commit"] == ["commit"] * 2
    assert_sound(hub.root / "repos" / "models" / f"{repo}.git")


def test_pull_requests_are_listed_renamed_and_commented(api: HfApi, repo: str) -> None:
    first = api.create_pull_request(repo, title="One", description="the first")
    push(api, repo, {"a.txt": b"1"}, create_pr=True)
    assert (first.num, first.status, first.is_pull_request) == (1, "draft", True)
    assert [each.num for each in api.get_repo_discussions(repo)] == [2, 1]
    api.comment_discussion(repo, 1, comment="Hello")
    api.rename_discussion(repo, 1, new_title="Uno")
    api.change_discussion_status(repo, 1, new_status="closed")
    details = api.get_discussion_details(repo, 1)
    assert (details.title, details.status) == ("Uno", "closed")
    assert [event.type for event in details.events] == ["comment", "comment", "title-change", "status-change"]
    assert [each.num for each in api.get_repo_discussions(repo, discussion_status="open")] == [2]
    assert "+1" in (api.get_discussion_details(repo, 2).diff or "")


def test_a_conflict_is_reported_and_not_merged(api: HfApi, repo: str) -> None:
    push(api, repo, {"a.txt": b"proposed"}, create_pr=True)
    push(api, repo, {"a.txt": b"main"})
    assert api.get_discussion_details(repo, 1).conflicting_files == ["a.txt"]
    with pytest.raises(HfHubHTTPError, match="409"):
        api.merge_pull_request(repo, 1)
    assert api.get_discussion_details(repo, 1).status == "open"


def test_a_closed_pull_request_accepts_no_commits(api: HfApi, repo: str) -> None:
    push(api, repo, {"a.txt": b"1"}, create_pr=True)
    api.change_discussion_status(repo, 1, new_status="closed")
    with pytest.raises(HfHubHTTPError, match="closed"):
        push(api, repo, {"a.txt": b"2"}, revision="refs/pr/1")
    with pytest.raises(HfHubHTTPError, match="closed"):
        api.merge_pull_request(repo, 1)
    assert list(api.get_repo_discussions(repo, discussion_type="discussion")) == []
    with pytest.raises(HfHubHTTPError, match="403"):
        api.create_discussion(repo, title="Hello")
    with pytest.raises(HfHubHTTPError, match="404"):
        api.get_discussion_details(repo, 7)


def test_refs_of_pull_requests_are_listed_on_request(api: HfApi, repo: str) -> None:
    info = push(api, repo, {"a.txt": b"1"}, create_pr=True)
    assert api.list_repo_refs(repo).pull_requests is None
    (ref,) = api.list_repo_refs(repo, include_pull_requests=True).pull_requests or []
    assert (ref.ref, ref.target_commit) == ("refs/pr/1", info.oid)


def test_other_users_open_pull_requests_and_owners_merge_them(tmp_path: Path, client: Callable[..., HfApi]) -> None:
    users = [User("ann", "hf_ann"), User("ben", "hf_ben"), User("eve", "hf_eve")]
    with LocalHub(tmp_path, users=users) as hub:
        ann, ben, eve = (client(hub, f"hf_{name}") for name in ("ann", "ben", "eve"))
        ann.create_repo("ann/runs")
        push(ben, "ann/runs", {LOG: b"x" * 1000}, create_pr=True)
        push(ben, "ann/runs", {"a.txt": b"1"}, revision="refs/pr/1")
        for refused in (
            lambda: push(ben, "ann/runs", {"a.txt": b"1"}),
            lambda: push(eve, "ann/runs", {"b.txt": b"1"}, revision="refs/pr/1"),
            lambda: ben.merge_pull_request("ann/runs", 1),
            lambda: eve.change_discussion_status("ann/runs", 1, new_status="closed"),
        ):
            with pytest.raises(HfHubHTTPError, match="403"):
                refused()
        eve.comment_discussion("ann/runs", 1, comment="Nice")
        ann.merge_pull_request("ann/runs", 1)
        assert {LOG, "a.txt"} < set(ann.list_repo_files("ann/runs"))
        page = send(hub, "GET", "/ann/runs/discussions/1", token=None)
        assert (page.status, b"merged" in page.body) == (200, True)
