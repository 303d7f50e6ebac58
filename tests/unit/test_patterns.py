"""Patterns match as in `huggingface_hub`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from huggingface_hub import hf_api
from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]
from hypothesis import example, given
from hypothesis import strategies as st

from hf_summary_writer.config import RUN_FILES
from hf_summary_writer.folder.patterns import DEFAULT_IGNORE_PATTERNS, SECRET_PATTERNS, PathFilter, private_places

if TYPE_CHECKING:
    from pathlib import Path

PATHS = st.text("ab.*/[]!git", min_size=1, max_size=8)
PATTERNS = st.none() | PATHS | st.lists(PATHS, max_size=3)


@given(st.lists(PATHS), PATTERNS, PATTERNS)
@example(["a/b"], "a/", None)
@example(["a"], [], None)
@example(["a.tfevents.1", "b/a.tfevents.1", "c"], "*.tfevents.*", None)
@example([".git/x", "a/.git/x", "a/.git"], None, None)
@example(["a/b"], "a\\b", None)
def test_files_are_selected_as_by_the_client(
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
def test_no_file_in_a_pruned_folder_matches(name: str, folder: str) -> None:
    everything = PathFilter()
    assert everything.prunes(folder)
    assert not everything(f"{folder}/{name}")
    assert everything.is_private(f"{folder}/{name}")


def test_a_folder_is_ignored_by_the_pattern_that_names_it() -> None:
    patterns = PathFilter(None, ["data/", "*.txt"])
    assert [patterns.ignores(folder) for folder in ("data", "database", "a/data", "a.txt")] == [
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    "secret",
    [
        *(".env", "sub/.env", ".env.local", ".ENV", ".envrc", ".netrc", "_netrc", ".git/config", "home/.ssh/id_rsa"),
        *(".npmrc", ".pypirc", "id_rsa", "ID_ED25519.pub", "aws.pem", ".docker/config.json", ".kube/config"),
        *(".config/gcloud/credentials.db", ".aws/credentials", "kaggle.json", "a/huggingface/token"),
    ],
)
def test_files_with_credentials_are_never_included(secret: str) -> None:
    assert not PathFilter("*")(secret)


@pytest.mark.parametrize(
    "name", ["environment.yml", "id_to_label.json", "config.json", "token", "events.env.tfevents.1"]
)
def test_files_that_only_look_like_credentials_are_included(name: str) -> None:
    assert PathFilter("*")(name)


@pytest.mark.parametrize(
    ("variables", "places"),
    [
        ({"HF_HOME": "{}/hf"}, {"hf", "hf/token", "hf/stored_tokens"}),
        ({"HF_HOME": "{}"}, {"token", "stored_tokens"}),
        ({"HF_HOME": "{}/.."}, set()),
        ({"HF_HOME": "$PLACE/hf", "PLACE": "{}"}, {"hf", "hf/token", "hf/stored_tokens"}),
        ({"HF_HOME": "/elsewhere", "HF_TOKEN_PATH": "{}/t", "HF_STORED_TOKENS_PATH": "{}/u/v"}, {"t", "u/v"}),
        ({"XDG_CACHE_HOME": "{}/x"}, {"x/huggingface", "x/huggingface/token", "x/huggingface/stored_tokens"}),
        ({"HOME": "{}"}, {f".cache/huggingface{name}" for name in ("", "/token", "/stored_tokens")}),
    ],
)
def test_the_home_and_the_tokens_of_the_client_are_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], places: set[str]
) -> None:
    given = {name: value.format(tmp_path) for name, value in variables.items()}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert private_places(tmp_path, given) == places


def test_a_home_of_the_client_behind_a_link_is_private(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    places = private_places(tmp_path / "run", {"HF_HOME": str(tmp_path / "link" / "hf")})
    assert places == {"hf", "hf/token", "hf/stored_tokens"}


@pytest.mark.parametrize(
    ("path", "is_included"),
    [
        ("events.out.tfevents.1.host", True),
        ("trial/events.out.tfevents.1.host", True),
        ("projector_config.pbtxt", True),
        *((f"00012/default/{name}", True) for name in ("tensors.tsv", "metadata.tsv", "sprite.png")),
        ("data/metadata.tsv", False),
        ("model.safetensors", False),
    ],
)
def test_a_run_consists_of_event_files_and_embeddings(path: str, is_included: bool) -> None:
    assert PathFilter(RUN_FILES)(path) is is_included


def test_a_pattern_that_is_not_text_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="allow_patterns"):
        PathFilter([1])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="ignore_patterns"):
        PathFilter(None, [None])  # type: ignore[list-item]
