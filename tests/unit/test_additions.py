"""How additions are split into commits: inline content has a size limit, uploaded files do not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hf_summary_writer.hub.uploads import PreparedCommit, posted_bytes


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
    additions = (text("a", 6), binary("b", 100), text("c", 4), text("d", 1), binary("e", 100), text("f", 10))
    assert names(PreparedCommit(additions, frozenset()), 10) == [["b", "e", "a", "c"], ["d"], ["f"]]


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
