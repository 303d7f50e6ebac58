"""Additions: how they are split into commits, what the Hub has answered about each, and the card of a new repo."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace
from typing import Any

import pytest

from hf_summary_writer.config import Destination
from hf_summary_writer.hub.uploads import (
    PreparedCommit,
    exists,
    git_oid,
    is_identical,
    is_in_lfs,
    is_left_out,
    model_card,
    posted_bytes,
)

TEXT = b"some text"


def text(name: str, size: int) -> Any:
    return SimpleNamespace(
        path_in_repo=name, path_or_fileobj=b"x" * size, upload_info=SimpleNamespace(size=size, sha256=b"")
    )


def binary(name: str, size: int) -> Any:
    """Return an addition that the client has uploaded and emptied."""
    return SimpleNamespace(path_in_repo=name, path_or_fileobj=b"", upload_info=SimpleNamespace(size=size, sha256=b""))


def names(uploaded: PreparedCommit, most: int) -> list[list[str]]:
    return [[addition.path_in_repo for addition in share.additions] for share in uploaded.shares(most)]


def test_only_content_that_was_not_uploaded_counts_as_posted_bytes() -> None:
    assert posted_bytes([text("a", 5), binary("b", 100), text("c", 7)]) == 12


def test_a_commit_takes_all_uploaded_files_and_as_much_text_as_fits() -> None:
    additions = (
        text("a", 6),
        binary("b", 100),
        text("c", 4),
        text("d", 1),
        binary("e", 100),
        text("f", 2),
        text("g", 10),
    )
    assert names(PreparedCommit(additions, frozenset()), 10) == [["b", "e", "a", "c"], ["d", "f"], ["g"]]


def test_a_text_over_the_limit_is_committed_and_every_file_is_in_one_commit() -> None:
    additions = (text("a", 20), text("b", 20), text("c", 0))
    assert names(PreparedCommit(additions, frozenset()), 10) == [["c", "a"], ["b"]]


def test_additions_within_the_limit_are_one_commit_in_their_order() -> None:
    uploaded = PreparedCommit((text("a", 2), text("b", 3)), frozenset({"left out"}))
    assert uploaded.shares(10) == [uploaded]


def test_accompanying_files_are_in_the_first_commit_only() -> None:
    card = text("README.md", 3)
    prepared = PreparedCommit((text("a", 9), text("b", 9)), frozenset({"left out"}), along=(card,))
    first, second = prepared.shares(10)
    assert [addition.path_in_repo for addition in first.additions] == ["a"]
    assert (first.along, second.along) == ((card,), ())
    # Files that the Hub leaves out are reported once.
    assert (first.left_out, second.left_out) == (frozenset({"left out"}), frozenset())


def test_without_additions_there_is_one_empty_share() -> None:
    nothing = PreparedCommit((), frozenset({"left out"}))
    assert nothing.shares(10) == [nothing]


def answered(**answers: Any) -> Any:
    """Return an addition with the private attributes in which the client keeps the Hub's answers."""
    info = SimpleNamespace(size=len(TEXT), sha256=hashlib.sha256(TEXT).digest())
    return SimpleNamespace(upload_info=info, **{f"_{name}": value for name, value in answers.items()})


def test_the_answers_about_a_file_are_read_from_the_client() -> None:
    unknown = answered()
    assert (exists(unknown), is_identical(unknown), is_in_lfs(unknown), is_left_out(unknown)) == (False,) * 4
    known = answered(remote_oid="a", local_oid="a", upload_mode="lfs", should_ignore=True)
    assert (exists(known), is_identical(known), is_in_lfs(known), is_left_out(known)) == (True,) * 4
    other = answered(remote_oid="a", local_oid="b", upload_mode="regular", should_ignore=False)
    assert (exists(other), is_identical(other), is_in_lfs(other), is_left_out(other)) == (True, False, False, False)


def test_a_file_is_known_by_the_hash_that_git_gives_it() -> None:
    pointer = (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{hashlib.sha256(TEXT).hexdigest()}\nsize 9\n"
    ).encode()
    of_pointer = hashlib.sha1(b"blob %d\0%s" % (len(pointer), pointer), usedforsecurity=False).hexdigest()
    assert git_oid(answered(upload_mode="lfs", local_oid="b")) == of_pointer
    assert git_oid(answered(upload_mode="regular", local_oid="b")) == "b"
    assert git_oid(answered(upload_mode="regular")) == git_oid(answered(local_oid="b")) == ""


@pytest.mark.parametrize(
    ("repo_type", "revision", "options", "shown"),
    [
        ("model", "main", "", "Training metrics"),
        ("model", "dev", " --revision dev", "Each folder below is a run"),
        ("dataset", "main", " --repo-type dataset", "Each folder below is a run"),
    ],
)
def test_the_card_names_the_commands_that_read_the_logs(
    repo_type: str, revision: str, options: str, shown: str
) -> None:
    card = model_card(
        Destination("https://hub", repo_type, "user/logs", revision, "tensorboard/run"), holds_logs=True
    ).decode()
    assert f"\nhf download user/logs{options} --local-dir logs\ntensorboard --logdir logs/tensorboard\n" in card
    assert shown in card
    assert "sdk:" not in card
