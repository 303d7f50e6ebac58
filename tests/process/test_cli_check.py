"""`hf-summary-writer check` names problems that prevent uploads, with a remedy, before the training starts."""

from __future__ import annotations

import os
import re
import time
from email.utils import formatdate
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import huggingface_hub
import pytest
from huggingface_hub import HfApi, constants

import commands
from faults.proxy import Answer, FaultProxy
from hf_summary_writer.hub.check import check
from hub_process import HubProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def findings(hub: Any, *words: object, home: Path, **variables: str) -> tuple[dict[str, dict[str, Any]], int]:
    done = commands.invoke(hub, "check", *words, "--json", home=home, **variables)
    return {found["subject"]: found for found in commands.objects(done.stdout)}, done.returncode


def test_a_successful_check_exits_with_0_and_creates_no_repo(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    name = repo_id.rpartition("/")[2]
    found, code = findings(hub, name, home=tmp_path)
    assert (code, all(each["ok"] for each in found.values())) == (0, True)
    assert list(found) == ["versions", "mode", "Xet", "Hub", "clock", "limits", "token", "repo"]
    assert "does not exist" in found["repo"]["text"]
    assert re.fullmatch(r"[\d,]+ API requests left for the next \d+ s", found["limits"]["text"])
    assert not api.repo_exists(f"{api.whoami()['name']}/{name}")
    api.create_repo(repo_id)
    commits = len(api.list_repo_commits(repo_id))
    found, code = findings(hub, repo_id, home=tmp_path)
    assert (code, found["repo"]["ok"]) == (0, True)
    assert "may write" in found["repo"]["text"]
    found, code = findings(hub, repo_id, "--revision", "dev", home=tmp_path)
    assert (code, found["repo"]["ok"]) == (0, True)
    assert f"model {repo_id} has no branch dev" in found["repo"]["text"]
    nowhere = commands.invoke(hub, "check", repo_id, "--revision", "refs/pr/7", home=tmp_path)
    assert nowhere.returncode == 1
    assert f"model {repo_id} has no pull request refs/pr/7" in nowhere.stdout
    assert len(api.list_repo_commits(repo_id)) == commits


def test_a_wrong_token_is_reported(hub: HubProcess, tmp_path: Path) -> None:
    found, code = findings(hub, "--token", "hf_wrong", home=tmp_path)
    assert (code, found["Hub"]["ok"], found["token"]["ok"]) == (1, True, False)
    assert "hf auth login" in found["token"]["remedy"]


def test_a_token_that_cannot_be_sent_is_no_trouble_of_the_network(hub: HubProcess, tmp_path: Path) -> None:
    found, code = findings(hub, home=tmp_path, HF_TOKEN="hf_clé")
    assert (code, found["Hub"]["ok"], found["token"]["ok"]) == (1, True, False)
    assert "copy it again" in found["token"]["text"]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Any]:
    """Return a Hub with a read-only token."""
    with HubProcess(
        tmp_path / "hub", "--token", "hf_writer", "--user", "guest:hf_guest:read", any_namespace=False
    ) as hub:
        yield SimpleNamespace(endpoint=hub.endpoint, token="hf_guest")


def test_a_read_only_token_is_reported(reader: Any, tmp_path: Path) -> None:
    found, code = findings(reader, "guest/run", home=tmp_path)
    assert (code, found["token"]["ok"]) == (1, False)


def test_a_new_repo_in_the_namespace_of_somebody_else_is_reported(reader: Any, tmp_path: Path) -> None:
    reader.token = "hf_writer"
    found, code = findings(reader, "locale/run", home=tmp_path)
    assert (code, found["token"]["ok"], found["repo"]["ok"]) == (1, True, False)
    assert "locale is neither local nor an organization of this account" in found["repo"]["text"]
    assert findings(reader, "local/run", home=tmp_path)[1] == 0


def test_an_unreachable_hub_is_reported(tmp_path: Path) -> None:
    found, code = findings(commands.Nowhere(), home=tmp_path)
    assert (code, found["Hub"]["ok"]) == (1, False)
    assert commands.Nowhere.endpoint in found["Hub"]["text"]


@pytest.mark.parametrize("cache", ["file/xet", "file", "locked/xet"])
def test_offline_mode_and_an_unusable_xet_cache_are_reported(
    hub: HubProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str
) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "locked").mkdir()
    monkeypatch.setattr(constants, "HF_XET_CACHE", str(tmp_path / cache))
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / "locked" and access(path, mode))
    found, code = findings(hub, home=tmp_path, HF_SUMMARY_WRITER_MODE="offline")
    assert (code, found["mode"]["ok"], found["Xet"]["ok"]) == (1, False, False)
    assert "HF_HOME" in found["Xet"]["remedy"]


def test_an_inaccessible_xet_cache_does_not_abort_the_check(
    hub: HubProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_XET_CACHE", str(tmp_path / ("x" * 300) / "xet"))
    found, code = findings(hub, home=tmp_path)
    assert (code, found["Xet"]["ok"]) == (0, True)


def test_an_invalid_mode_is_reported(hub: HubProcess, tmp_path: Path) -> None:
    found, code = findings(hub, home=tmp_path, HF_SUMMARY_WRITER_MODE="on")
    assert (code, found["mode"]["ok"]) == (1, False)
    assert "correct HF_SUMMARY_WRITER_MODE" in found["mode"]["remedy"]


@pytest.mark.parametrize(("repo_type", "ok"), [("model", True), ("bucket", False)])
def test_an_old_client_is_reported_for_a_bucket(
    hub: HubProcess, repo_id: str, monkeypatch: pytest.MonkeyPatch, repo_type: str, ok: bool
) -> None:
    monkeypatch.setattr(huggingface_hub, "__version__", "1.4.0")
    found = {each.subject: each.ok for each in check(HfApi(hub.endpoint, hub.token), repo_id, repo_type)}
    assert all(found.values()) is ok


@pytest.mark.parametrize("auth", [b"null", b'{"accessToken": null}', b'{"accessToken": {}}'])
def test_a_login_without_a_role_is_no_trouble(hub: HubProcess, tmp_path: Path, auth: bytes) -> None:
    with FaultProxy(hub) as portal:
        portal.add("*", "whoami", Answer(200, body=b'{"name": "me", "auth": %s}' % auth))
        found, code = findings(portal, home=tmp_path)
    assert (code, found["token"]["text"]) == (0, "of me, with the role unknown")


@pytest.mark.parametrize(("repo_type", "switched_off"), [("model", True), ("bucket", False)])
def test_xet_that_is_switched_off_is_reported_where_it_is_not_needed(
    hub: HubProcess, repo_id: str, monkeypatch: pytest.MonkeyPatch, repo_type: str, switched_off: bool
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    found = {each.subject: each for each in check(HfApi(hub.endpoint, hub.token), repo_id, repo_type)}
    assert ("switched off" in found["Xet"].text) is switched_off


@pytest.mark.parametrize(("namespace", "ok"), [("me", True), ("Team", True), ("other", False)])
def test_a_new_repo_may_be_in_the_namespace_of_an_organization(
    hub: HubProcess, repo_id: str, tmp_path: Path, namespace: str, ok: bool
) -> None:
    with FaultProxy(hub) as portal:
        portal.add("*", "whoami", Answer(200, body=b'{"name": "Me", "orgs": [{"name": "Team"}, "odd"]}'))
        found, code = findings(portal, f"{namespace}/{repo_id.partition('/')[2]}", home=tmp_path)
    assert (code == 0, found["repo"]["ok"]) == (ok, ok)


def test_a_repo_that_takes_no_uploads_is_reported(hub: HubProcess, repo_id: str, tmp_path: Path) -> None:
    with FaultProxy(hub) as portal:
        portal.add("*", "/preupload/", Answer(403))
        found, code = findings(portal, repo_id, home=tmp_path)
    assert (code, found["repo"]["ok"]) == (1, False)


def test_a_password_in_the_address_of_the_hub_is_not_shown(hub: HubProcess, tmp_path: Path) -> None:
    found, _ = findings(
        SimpleNamespace(endpoint=hub.endpoint.replace("://", "://me:word@"), token=hub.token), home=tmp_path
    )
    assert "word@" not in str(found)
    assert found["Hub"]["text"] == hub.endpoint


def test_a_wrong_clock_is_reported() -> None:
    from hf_summary_writer.hub.check import _clock

    assert _clock(formatdate(time.time())).ok
    assert not _clock(formatdate(time.time() - 3600)).ok
    assert not _clock(formatdate(time.time() + 3600)).ok
    assert _clock("soon").ok
    assert _clock("").ok


def test_on_a_terminal_the_findings_are_a_table(hub: HubProcess, tmp_path: Path) -> None:
    shown = commands.on_terminal(hub, "check", home=tmp_path)
    assert shown.code == 0
    assert "ok    token" in shown.text
    assert hub.token not in shown.text


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"<html>log in</html>"), (200, b""), (200, b"null"), (200, b"{}"), (404, b"no such page"), (502, b"")],
)
def test_another_server_than_the_hub_is_reported(hub: HubProcess, tmp_path: Path, status: int, body: bytes) -> None:
    with FaultProxy(hub) as portal:
        portal.add("*", "whoami", Answer(status, body=body))
        found, code = findings(portal, home=tmp_path)
    assert (code, found["Hub"]["ok"], "token" in found) == (1, False, False)
    assert "network" in found["Hub"]["remedy"]
