"""Patterns mean what they mean to `huggingface_hub`."""

from __future__ import annotations

import pytest
from huggingface_hub import hf_api
from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]
from hypothesis import example, given
from hypothesis import strategies as st

from hf_summary_writer.folder.patterns import DEFAULT_IGNORE_PATTERNS, SECRET_PATTERNS, PathFilter

PATHS = st.text("ab.*/[]!git", min_size=1, max_size=8)
PATTERNS = st.none() | PATHS | st.lists(PATHS, max_size=3)


@given(st.lists(PATHS), PATTERNS, PATTERNS)
@example(["a/b"], "a/", None)
@example(["a"], [], None)
@example(["a.tfevents.1", "b/a.tfevents.1", "c"], "*.tfevents.*", None)
@example([".git/x", "a/.git/x", "a/.git"], None, None)
def test_files_are_chosen_as_the_client_chooses_them(
    paths: list[str], allow: list[str] | str | None, ignore: list[str] | str | None
) -> None:
    ignored = [] if ignore is None else [ignore] if isinstance(ignore, str) else ignore
    theirs = filter_repo_objects(
        paths, allow_patterns=allow, ignore_patterns=[*ignored, *DEFAULT_IGNORE_PATTERNS, *SECRET_PATTERNS]
    )
    assert [path for path in paths if PathFilter(allow, ignore)(path)] == list(theirs)


def test_the_default_ignores_are_those_of_the_client() -> None:
    assert list(DEFAULT_IGNORE_PATTERNS) == hf_api.DEFAULT_IGNORE_PATTERNS  # type: ignore[attr-defined]


@given(PATHS, st.sampled_from([".git", "x/.git", ".cache/huggingface", "x/.cache/huggingface"]))
def test_a_folder_that_is_never_entered_holds_nothing_that_is_meant(name: str, folder: str) -> None:
    everything = PathFilter()
    assert everything.prunes(folder)
    assert not everything(f"{folder}/{name}")


def test_files_that_hold_credentials_are_never_meant() -> None:
    everything = PathFilter("*")
    for secret in (".env", "sub/.env", ".env.local", ".envrc", ".netrc", ".git/config", "home/.ssh/id_rsa"):
        assert not everything(secret)
    assert everything("environment.yml")


def test_a_pattern_that_is_no_text_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="allow_patterns"):
        PathFilter([1])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="ignore_patterns"):
        PathFilter(None, [None])  # type: ignore[list-item]
