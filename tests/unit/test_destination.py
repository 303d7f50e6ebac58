"""Arguments that the Hub would refuse raise before anything is written."""

from __future__ import annotations

import functools
import math
import os
import string
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from hypothesis import example, given
from hypothesis import strategies as st

from hf_summary_writer import CommitScheduler, HFSummaryWriter, checks, read, view
from hf_summary_writer.config import Destination
from hf_summary_writer.events import EventWriter
from hf_summary_writer.hub import endpoint_for

NAME_CHARACTERS = string.ascii_letters + string.digits + "-_./ é\n"


@given(st.text(NAME_CHARACTERS, max_size=12))
@example("user/name")
@example("name")
@example("a--b")
@example("a..b")
@example("a.git")
@example("a/b/c")
@example("x" * 96)
@example("x" * 97)
def test_a_repo_id_is_valid_exactly_when_the_client_accepts_it(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        with pytest.raises(ValueError, match="repo_id"):
            checks.check_repo_id(repo_id)
    else:
        # Older clients accept letters of other alphabets and a trailing newline; the Hub does not.
        if repo_id.isascii() and not repo_id.endswith("\n"):
            assert checks.check_repo_id(repo_id) == repo_id


@pytest.mark.parametrize("repo_id", [None, 3, Path("user/name"), b"user/name"])
def test_a_repo_id_that_is_not_text_is_a_type_error(repo_id: object) -> None:
    with pytest.raises(TypeError, match="repo_id"):
        checks.check_repo_id(repo_id)


@pytest.mark.faults("S3")
@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "a/../../b",
        "..",
        ".",
        "a//b",
        ".git/x",
        "a/.git",
        "a/.GIT/b",
        ".cache/x",
        "a\0b",
        "a\\b",
        "\\x",
        "a\nb",
        "a\x7fb",
        "a\udcffb",
        "c:",
        "logs/c:x",
    ],
)
def test_an_invalid_path_in_repo_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="path_in_repo"):
        checks.check_path_in_repo(path)
    # By the constructors too, before any folder is created.
    logdir = tmp_path / "run"
    for make in (
        lambda: HFSummaryWriter("user/run", logdir=logdir, path_in_repo=path),
        lambda: CommitScheduler(repo_id="user/run", folder_path=logdir, path_in_repo=path),
    ):
        with pytest.raises(ValueError, match="path_in_repo"):
            make()
    assert not logdir.exists()


@pytest.mark.parametrize(
    ("path", "meant"), [(None, ""), ("", ""), ("/", ""), ("a/b/", "a/b"), ("/tensorboard", "tensorboard")]
)
def test_slashes_around_a_path_in_repo_do_not_matter(path: str | None, meant: str) -> None:
    assert checks.check_path_in_repo(path) == meant


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf"), 10**400, -(10**400)])
def test_an_interval_that_is_not_positive_and_finite_is_a_value_error(minutes: float) -> None:
    with pytest.raises(ValueError, match="commit_every"):
        checks.check_interval(minutes, "commit_every")


@pytest.mark.parametrize("minutes", ["5", None, True])
def test_an_interval_that_is_not_a_number_is_a_type_error(minutes: object) -> None:
    with pytest.raises(TypeError, match="commit_every"):
        checks.check_interval(minutes, "commit_every")


@pytest.mark.parametrize("repo_type", [1, b"model", ["model"], np.array([1, 2])], ids=repr)
def test_a_repo_type_that_is_not_text_is_a_type_error(repo_type: object) -> None:
    with pytest.raises(TypeError, match="repo_type must be one of model, dataset"):
        checks.check_repo_type(repo_type)


@pytest.mark.parametrize("repo_type", ["models", "kernel", "buckets", ""])
def test_a_repo_type_the_hub_does_not_have_is_refused(repo_type: object) -> None:
    with pytest.raises(ValueError, match="repo_type"):
        checks.check_repo_type(repo_type)


@pytest.mark.parametrize(
    "revision", ["", "a b", "a..b", "-x", "a.lock", "a~1", "a:b", "/a", "a/", "@", ".a", "a\x7f", "\udcff"]
)
def test_an_invalid_branch_name_is_refused(revision: str) -> None:
    with pytest.raises(ValueError, match="revision"):
        checks.check_revision(revision)


@pytest.mark.parametrize("revision", ["main", "runs/2024", "v1.0", "feature_x"])
def test_branch_names_may_have_slashes_and_dots(revision: str) -> None:
    assert checks.check_revision(revision) == revision


@pytest.mark.faults("S1")
def test_white_space_around_a_token_is_dropped_and_a_broken_token_is_never_shown() -> None:
    assert checks.check_token(" hf_abc\n") == "hf_abc"
    for broken in ("hf_sécret", "hf_sec ret", "hf_sec\x00ret", "hf_sec\nret", "   "):
        for check in (checks.check_token, lambda token: HFSummaryWriter("user/run", token=token)):
            with pytest.raises(ValueError, match="token") as caught:
                check(broken)
            assert "hf_s" not in str(caught.value)


def test_a_folder_is_checked_but_not_created(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(ValueError, match="is a file"):
        checks.check_folder(file)
    with pytest.raises(ValueError, match="NUL"):
        checks.check_folder("a\0b")
    for address in ("s3://bucket/run", "gs://bucket/run"):
        with pytest.raises(ValueError, match="on this machine"):
            checks.check_folder(address)
    [entry] = os.scandir(os.fsencode(tmp_path))
    for no_text in (3, b"run", entry):
        with pytest.raises(TypeError, match="folder_path"):
            checks.check_folder(no_text)
    assert checks.check_folder("~/runs") == Path("~/runs").expanduser().resolve()
    with pytest.raises(ValueError, match=r"folder_path is empty: use \. for the working folder"):
        checks.check_folder("")
    with pytest.raises(ValueError, match=r"folder_path .* holds a name longer than 255 bytes"):
        checks.check_folder(tmp_path / ("x" * 256))
    with pytest.raises(ValueError, match=r"folder_path .* holds characters that no file name has"):
        checks.check_folder("\ud800")
    assert checks.check_folder(tmp_path / "new") == (tmp_path / "new").resolve()
    assert not (tmp_path / "new").exists()


def test_a_relative_folder_needs_a_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ValueError, match="absolute path"):
        HFSummaryWriter("user/run", logdir="runs/first")
    assert checks.check_folder(tmp_path / "new") == (tmp_path / "new").resolve()


@pytest.mark.parametrize("number", [np.int64(5), np.float32(5), np.float64(5)])
def test_durations_may_be_numpy_numbers(number: float, tmp_path: Path) -> None:
    assert type(checks.check_interval(number)) is float
    assert type(checks.check_seconds(number)) is float
    with EventWriter(tmp_path, flush_secs=number):
        pass


@pytest.mark.parametrize("patterns", [b"*.txt", np.array("*.txt"), 3, ["*.txt", b"*.log"]], ids=repr)
def test_patterns_that_are_not_text_are_a_type_error(patterns: object) -> None:
    with pytest.raises(TypeError, match=r"allow_patterns must be a str or a list of str.*(bytes|ndarray|int)"):
        checks.as_patterns(patterns, "allow_patterns")


@pytest.mark.parametrize("value", [np.True_, np.bool_(0)])
def test_a_switch_may_be_a_numpy_boolean(value: object) -> None:
    assert checks.check_switch(value, "squash_history") is bool(value)


@pytest.mark.parametrize("value", [1, "yes", np.int64(1)])
def test_a_switch_that_is_not_a_boolean_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="squash_history must be True or False"):
        checks.check_switch(value, "squash_history")


async def coroutine(_details: object) -> None: ...


class AsyncCallable:
    async def __call__(self, _details: object) -> None: ...


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        (3, "function, not int"),
        (coroutine, "plain function"),
        (functools.partial(coroutine), "plain function"),
        (AsyncCallable(), "plain function"),
        (lambda: None, "of one argument: too many positional arguments"),
        (lambda _one, _two: None, "of one argument: missing a required argument: '_two'"),
    ],
    ids=["number", "coroutine", "partial", "object", "no argument", "two arguments"],
)
def test_a_hook_that_would_fail_when_called_is_refused(hook: object, message: str) -> None:
    with pytest.raises(TypeError, match=f"on_commit must be a .*{message}"):
        checks.check_hook(hook, "on_commit")


def test_a_hook_may_be_anything_that_takes_one_argument() -> None:
    def wrapped() -> None: ...

    @functools.wraps(wrapped)
    def wrapper(*_arguments: object) -> None: ...

    class Hooks:
        def commit(self, _details: object, _more: int = 0) -> None: ...

    class Annotated:
        @property
        def __signature__(self) -> object:
            raise NameError("as for an annotation on Python 3.14 whose name is imported for type checkers alone")

        def __call__(self, _details: object) -> None: ...

    found: list[object] = []
    callables = (print, found.append, wrapper, Hooks().commit, functools.partial(print, 1), Mock(), Annotated())
    for hook in (None, *callables):
        assert checks.check_hook(hook, "on_commit") is hook


def test_a_wait_is_capped_at_the_longest_that_a_lock_supports() -> None:
    assert checks.check_seconds(1e300) == threading.TIMEOUT_MAX
    assert checks.check_seconds(math.inf, may_be_endless=True) == threading.TIMEOUT_MAX
    assert checks.check_interval(1e300) == threading.TIMEOUT_MAX / 60
    assert checks.check_seconds(3600) == 3600.0


@pytest.mark.parametrize("number", [-1, math.inf, math.nan])
def test_an_impossible_number_of_seconds_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="close_timeout"):
        checks.check_seconds(number)


@pytest.mark.parametrize("number", [0, -1, math.nan])
def test_an_impossible_number_of_bytes_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="segment_bytes"):
        checks.check_bytes(number, "segment_bytes")
    assert checks.check_bytes(math.inf, "segment_bytes") == math.inf


@pytest.mark.parametrize("client", ["hf_a_token", HfApi, object(), 1], ids=lambda client: type(client).__name__)
def test_an_invalid_client_is_refused_and_not_shown(client: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="hf_api must be an HfApi") as refused:
        HFSummaryWriter("user/run", logdir=tmp_path / "run", hf_api=client)
    assert "hf_a" not in str(refused.value).replace("hf_api", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.faults("S1")
@pytest.mark.parametrize("function", [HFSummaryWriter, CommitScheduler, read, view], ids=lambda each: each.__name__)
def test_another_token_than_that_of_the_client_is_refused(
    function: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = {CommitScheduler: {"repo_id": "user/run", "folder_path": "logs"}}.get(function, {})
    name = () if folder else ("user/run",)
    for token in (f"hf_{'b' * 20}", False):
        with pytest.raises(ValueError, match="token is not the one of hf_api") as refused:
            function(*name, hf_api=HfApi(token=f"hf_{'a' * 20}"), token=token, **folder)
        assert "hf_a" not in str(refused.value).replace("hf_api", "")
        assert "hf_b" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_the_token_of_the_client_may_be_given_twice() -> None:
    for own, token in ((f"hf_{'a' * 20}", f" hf_{'a' * 20}\n"), (None, True), (False, False)):
        assert endpoint_for(HfApi("https://hub", token=own), token) == "https://hub"


@pytest.mark.parametrize(
    "endpoint", ["http://", "http://hub:99999", "https://hub:port", "http://[::1", "http://hub:0", "https://:443"]
)
def test_an_endpoint_without_a_host_or_with_an_impossible_port_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match=r"endpoint .* is no address"):
        checks.check_endpoint(endpoint)
    assert checks.check_endpoint("http://[::1]:8080/") == "http://[::1]:8080"


def test_a_message_about_a_huge_value_stays_short() -> None:
    for check in (checks.check_repo_id, checks.check_repo_type, checks.check_revision, checks.check_path_in_repo):
        with pytest.raises(ValueError, match="x…") as refused:
            check("x\n" + "x" * 10_000)
        assert len(str(refused.value)) < 500


@pytest.mark.faults("C2")
def test_all_paths_to_a_folder_resolve_to_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "link").symlink_to(run)
    monkeypatch.chdir(tmp_path)
    reached = [run, tmp_path / "link", "run", f"{run}{os.sep}", "./link/../run"]
    assert {checks.check_folder(way) for way in reached} == {run.resolve()}


def test_every_part_of_a_destination_changes_its_key() -> None:
    base = Destination("https://hub", "model", "user/a", "main", "tensorboard")
    others = [
        Destination("https://hub2", "model", "user/a", "main", "tensorboard"),
        Destination("https://hub", "dataset", "user/a", "main", "tensorboard"),
        Destination("https://hub", "model", "user/b", "main", "tensorboard"),
        Destination("https://hub", "model", "user/a", "dev", "tensorboard"),
        Destination("https://hub", "model", "user/a", "main", ""),
    ]
    assert len({base.key, *(other.key for other in others)}) == len(others) + 1
    assert base.path_in_repo("run/file") == "tensorboard/run/file"
    assert others[-1].path_in_repo("run/file") == "run/file"


@pytest.mark.parametrize(
    ("repo_type", "revision", "path", "files", "logs"),
    [
        ("model", "main", "", "user/a/tree/main", "user/a/tensorboard"),
        ("model", "dev", "", "user/a/tree/dev", None),
        ("dataset", "main", "", "datasets/user/a/tree/main", None),
        ("dataset", "runs/1", "a b", "datasets/user/a/tree/runs%2F1/a%20b", None),
        ("bucket", "", "", "buckets/user/a", None),
        ("bucket", "", "a b", "buckets/user/a/tree/a%20b", None),
    ],
)
def test_the_pages_of_the_files_and_of_the_logs(
    repo_type: str, revision: str, path: str, files: str, logs: str | None
) -> None:
    where = Destination("https://hub", repo_type, "user/a", revision, path)
    assert where.folder_url == f"https://hub/{files}"
    assert where.url == f"https://hub/{logs or files}"
    without_namespace = replace(where, repo_id="a")
    assert without_namespace.url is without_namespace.folder_url is None
    assert where.name == without_namespace.name == "a"


def test_an_empty_hf_endpoint_means_the_public_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "")
    monkeypatch.setenv("HF_SUMMARY_WRITER_MODE", "offline")
    with HFSummaryWriter("user/run", tmp_path / "run") as writer:
        assert writer.url == "https://huggingface.co/user/run/tensorboard"


def test_a_slash_at_the_end_of_an_endpoint_does_not_matter() -> None:
    assert checks.check_endpoint("https://hub/") == "https://hub"


@pytest.mark.parametrize(
    "endpoint", ["hub.example.com", "ftp://hub.example.com", "https://hub example.com", "ftp://me:word@example.com"]
)
def test_an_endpoint_that_is_no_web_address_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    with pytest.raises(ValueError, match="endpoint") as caught:
        checks.check_endpoint(endpoint)
    assert "word" not in str(caught.value)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    with pytest.raises(ValueError, match="HF_ENDPOINT"):
        HFSummaryWriter("user/run", tmp_path / "run")
    assert not (tmp_path / "run").exists()
