"""HTML pages of the local Hub: links work, no script of a repo is executed, private repos stay private."""

from __future__ import annotations

import base64
import re
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import CommitOperationAdd

if TYPE_CHECKING:
    from email.message import Message

    from huggingface_hub import HfApi

    from hub_process import HubProcess

EVIL = "<script>alert(1)</script>"


def visit(hub: HubProcess, path: str, password: str | None = None) -> tuple[int, str, Message[str, str]]:
    request = urllib.request.Request(hub.endpoint + path if path.startswith("/") else path)  # noqa: S310
    if password is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"me:{password}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), error.headers


def test_every_link_on_a_repos_pages_works(hub: HubProcess, api: HfApi, repo_id: str) -> None:
    url = api.create_repo(repo_id, repo_type="dataset")
    operations = [
        CommitOperationAdd("logs of mine/a b#c?.txt", b"content"),
        CommitOperationAdd("events.tfevents.1", b"x" * 2_000_000),
    ]
    info = api.create_commit(repo_id, operations, commit_message="Add a run", repo_type="dataset")
    api.create_branch(repo_id, branch="runs/second", repo_type="dataset")
    to_visit, seen = [str(url), info.commit_url], set()
    while to_visit:
        link = to_visit.pop().removeprefix(hub.endpoint)
        if link in seen:
            continue
        seen.add(link)
        status, text, headers = visit(hub, link)
        assert status == 200, link
        if headers["Content-Type"].startswith("text/html") and repo_id in link:
            to_visit += [found.replace("&amp;", "&") for found in re.findall(r'href="([^"]*)"', text)]
    assert f"/datasets/{repo_id}/resolve/main/logs%20of%20mine/a%20b%23c%3F.txt" in seen
    assert f"/datasets/{repo_id}/tree/runs%2Fsecond" in seen


def test_a_repo_page_shows_files_and_commits_with_sizes_and_titles(hub: HubProcess, api: HfApi, repo_id: str) -> None:
    api.create_repo(repo_id)
    operations = [CommitOperationAdd("events.tfevents.1", b"x" * 2_000_000)]
    api.create_commit(repo_id, operations, commit_message="Add a run")
    _, text, _ = visit(hub, f"/{repo_id}")
    assert "events.tfevents.1" in text
    assert "2.0 MB" in text
    assert "Add a run" in text
    assert repo_id in visit(hub, "/")[1]


def test_names_and_titles_are_escaped_and_scripts_are_blocked(hub: HubProcess, api: HfApi, repo_id: str) -> None:
    api.create_repo(repo_id)
    operations = [CommitOperationAdd(f"{EVIL}.html".replace("/", "_"), EVIL.encode())]
    info = api.create_commit(repo_id, operations, commit_message=EVIL, commit_description=f"more {EVIL}")
    for path in (f"/{repo_id}", info.commit_url, f"/{repo_id}/commits/main", f"/{repo_id}/tree/%3Cscript%3E"):
        _, text, headers = visit(hub, path)
        assert "<script" not in text
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    status, _, headers = visit(hub, f"/{repo_id}/resolve/main/%3Cscript%3Ealert(1)%3C_script%3E.html")
    assert (status, headers["Content-Type"]) == (200, "text/plain; charset=utf-8")


def test_private_repos_are_shown_after_signing_in(hub: HubProcess, api: HfApi, repo_id: str) -> None:
    api.create_repo(repo_id, private=True)
    assert repo_id not in visit(hub, "/")[1]
    status, text, _ = visit(hub, f"/{repo_id}")
    assert (status, 'href="/login"' in text) == (404, True)
    assert visit(hub, "/login")[2]["WWW-Authenticate"].startswith("Basic")
    assert repo_id in visit(hub, "/", password=hub.token)[1]
    assert visit(hub, f"/{repo_id}", password=hub.token)[0] == 200
    assert visit(hub, f"/{repo_id}", password="wrong")[0] == 401


@pytest.mark.parametrize("path", ["/tester/nothing-here", "/tester/nothing-here/commit/abc", "/x", "/favicon.ico"])
def test_missing_pages_are_404(hub: HubProcess, path: str) -> None:
    assert visit(hub, path)[0] == 404
