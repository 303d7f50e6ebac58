"""Permissions of users, organizations and read-only tokens, through the real client."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, constants
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from hf_summary_writer.localhub import LocalHub, Organization, User
from hf_summary_writer.localhub.accounts import Accounts
from hub_process import HubProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from huggingface_hub import HfApi

pytestmark = pytest.mark.client
ANN, BEN, GUEST = "hf_ann", "hf_ben", "hf_guest"
LOG = "events.tfevents.1"


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[LocalHub]:
    users = [User("ann", ANN), User("ben", BEN), User("ann", GUEST, may_write=False)]
    with LocalHub(tmp_path / "hub", users=users, organizations=[Organization("lab", frozenset({"ann"}))]) as hub:
        yield hub


def status_of(call: Callable[..., object], *arguments: object, **more: object) -> int:
    with pytest.raises(HfHubHTTPError) as caught:
        call(*arguments, **more)
    return caught.value.response.status_code


def test_each_token_has_its_user_and_organizations(crowded: LocalHub, client: Callable[..., HfApi]) -> None:
    ann, guest = client(crowded, ANN).whoami(), client(crowded, GUEST).whoami()
    assert (ann["name"], [each["name"] for each in ann["orgs"]]) == ("ann", ["lab"])
    assert ann["auth"]["accessToken"]["role"] == "write"
    assert (guest["name"], guest["auth"]["accessToken"]["role"]) == ("ann", "read")


def test_a_user_creates_repos_in_their_own_namespaces_only(crowded: LocalHub, client: Callable[..., HfApi]) -> None:
    ann, ben = client(crowded, ANN), client(crowded, BEN)
    assert ann.create_repo("runs").repo_id == "ann/runs"
    assert ann.create_repo("lab/runs").repo_id == "lab/runs"
    assert status_of(ben.create_repo, "lab/other") == 403
    assert status_of(ben.move_repo, from_id="ben/x", to_id="lab/x") == 404
    ben.create_repo("ben/x")
    assert status_of(ben.move_repo, from_id="ben/x", to_id="lab/x") == 403


def test_other_users_read_public_repos_and_see_no_private_ones(crowded: LocalHub, client: Callable[..., HfApi]) -> None:
    ann, ben = client(crowded, ANN), client(crowded, BEN)
    ann.create_repo("ann/public")
    ann.create_repo("lab/private", private=True)
    operations = [CommitOperationAdd("a.txt", b"x")]
    assert ben.repo_info("ann/public").id == "ann/public"
    assert status_of(ben.create_commit, "ann/public", operations, commit_message="Add") == 403
    assert status_of(ben.delete_repo, "ann/public") == 403
    with pytest.raises(RepositoryNotFoundError):
        ben.repo_info("lab/private")
    assert status_of(ben.delete_repo, "lab/private") == 404
    assert [each.id for each in ben.list_models()] == ["ann/public"]
    assert {each.id for each in ann.list_models()} == {"ann/public", "lab/private"}


def test_a_read_only_token_reads_and_never_writes(crowded: LocalHub, client: Callable[..., HfApi]) -> None:
    ann, guest = client(crowded, ANN), client(crowded, GUEST)
    ann.create_repo("ann/private", private=True)
    operations = [CommitOperationAdd(LOG, b"x" * 100)]
    ann.create_commit("ann/private", operations, commit_message="Add")
    assert LOG in guest.list_repo_files("ann/private")
    operations = [CommitOperationAdd(LOG, b"y" * 100)]
    assert status_of(guest.create_commit, "ann/private", operations, commit_message="Add") == 403
    assert status_of(guest.create_repo, "ann/more") == 403
    assert status_of(guest.create_branch, "ann/private", branch="b") == 403


def test_a_commit_names_its_author(crowded: LocalHub, client: Callable[..., HfApi]) -> None:
    ann = client(crowded, ANN)
    ann.create_repo("lab/runs")
    ann.create_commit("lab/runs", [CommitOperationAdd("a.txt", b"x")], commit_message="Add")
    assert ann.list_repo_commits("lab/runs")[0].authors == ["ann"]


def test_a_user_cannot_copy_a_private_file_of_another(crowded: LocalHub, client: Callable[..., HfApi]) -> None:
    ann, ben = client(crowded, ANN), client(crowded, BEN)
    ann.create_repo("ann/private", private=True)
    ben.create_repo("ben/mine")
    ann.create_commit(
        "ann/private", [CommitOperationAdd(LOG, random.Random(1).randbytes(99_000))], commit_message="Add"
    )
    try:
        copy = CommitOperationCopy(LOG, LOG, src_repo_id="ann/private", src_repo_type="model")
    except TypeError:
        pytest.skip("this client copies within a repo only")
    with pytest.raises(RepositoryNotFoundError):
        ben.create_commit("ben/mine", [copy], commit_message="Copy")


@pytest.mark.skipif(constants.HF_HUB_DISABLE_XET, reason="only files in Xet's storage are copied between repos")
def test_a_large_file_is_copied_to_another_repo(
    crowded: LocalHub, client: Callable[..., HfApi], tmp_path: Path
) -> None:
    ann, ben = client(crowded, ANN), client(crowded, BEN)
    content = random.Random(2).randbytes(200_000)
    ann.create_repo("ann/public")
    ben.create_repo("ben/private", private=True)
    ann.create_commit("ann/public", [CommitOperationAdd(LOG, content)], commit_message="Add")
    try:
        copy = CommitOperationCopy(LOG, f"copied/{LOG}", src_repo_id="ann/public", src_repo_type="model")
    except TypeError:
        pytest.skip("this client copies within a repo only")
    ben.create_commit("ben/private", [copy], commit_message="Copy")
    ann.delete_repo("ann/public")
    got = Path(ben.hf_hub_download("ben/private", f"copied/{LOG}", local_dir=tmp_path))
    assert got.read_bytes() == content


def test_users_are_defined_on_the_command_line(tmp_path: Path, client: Callable[..., HfApi]) -> None:
    options = ["--user", f"ann:{ANN}", f"--user=guest:{GUEST}:read", "--organization", "lab:ann"]
    with HubProcess(tmp_path, *options, "--token", "hf_t", any_namespace=False) as hub:
        assert hub.process
        arguments = Path(f"/proc/{hub.process.pid}/cmdline").read_text()
        assert not [token for token in (ANN, GUEST, "hf_t") if token in arguments], (
            "all users of the machine can read command lines"
        )
        assert client(hub).whoami()["name"] == "local"
        assert client(hub, ANN).create_repo("lab/runs").repo_id == "lab/runs"
        assert status_of(client(hub, GUEST).create_repo, "guest/runs") == 403


@pytest.mark.parametrize("text", ["ann", "ann:", ":hf_x", "a b:hf_x", "ann:hf_x:admin", "ann:hf x"])
def test_an_invalid_user_option_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"NAME:TOKEN|Invalid name"):
        User.parse(text)


def test_a_user_with_an_empty_token_or_an_invalid_name_is_refused() -> None:
    for name, token in (("ann", ""), ("ann", "a b"), ("../ann", ANN)):  # a caller may send an empty token, too
        with pytest.raises(ValueError, match=r"the token has characters|Invalid name"):
            User(name, token)
    with pytest.raises(ValueError, match="Invalid name"):
        Organization("a b", frozenset({"ann"}))
    unset: Any = None
    with pytest.raises(TypeError, match="a token must be a str, not NoneType"):
        User("ann", unset)


@pytest.mark.parametrize("text", ["lab", "lab:", "lab:,"])
def test_an_organization_without_members_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="NAME:USER"):
        Organization.parse(text)


def test_a_token_that_no_client_can_send_is_refused(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "hf_summary_writer.localhub", "--root", str(tmp_path), "--token", "two words"]
    refused = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert "characters that no token has" in refused.stderr


def test_with_any_namespace_a_user_may_use_all_namespaces() -> None:
    ann = User("ann", ANN)
    assert not Accounts([ann]).may_use(ann, "someone")
    assert Accounts([ann]).may_use(ann, "ANN")
    assert Accounts([ann], any_namespace=True).may_use(ann, "someone")
