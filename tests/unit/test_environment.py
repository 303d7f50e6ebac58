"""Environment variables provide defaults for omitted arguments only."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_summary_writer import HFSummaryWriter
from hf_summary_writer.config import Mode, commits_per_hour, complete_arguments, mode_for


class Example:
    @complete_arguments
    def __init__(
        self,
        repo_id: str | None = None,
        *,
        every: float | None = None,
        path_in_repo: str | None = "logs",
        squash_history: bool = False,
        **_: object,
    ) -> None:
        self.all = (repo_id, every, path_in_repo, squash_history)


@pytest.fixture
def filled(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "COMMIT_EVERY": " 0.5 ",
        "PATH_IN_REPO": "a/b/",
        "SQUASH_HISTORY": "Yes",
        "REPO_ID": "user/x",
    }.items():
        monkeypatch.setenv(f"HF_SUMMARY_WRITER_{name}", value)


@pytest.mark.usefixtures("filled")
def test_omitted_arguments_come_from_the_environment() -> None:
    assert Example().all == ("user/x", 0.5, "a/b", True)


@pytest.mark.usefixtures("filled")
def test_explicit_arguments_win_even_if_they_equal_the_default() -> None:
    assert Example("mine", every=5, path_in_repo="logs", squash_history=False).all == ("mine", 5, "logs", False)
    assert Example(path_in_repo=None).all[2] is None


@pytest.mark.usefixtures("filled")
def test_none_counts_as_omitted_unless_it_has_a_meaning() -> None:
    assert Example(None, every=None, path_in_repo=None, squash_history=None).all == ("user/x", 0.5, None, True)  # type: ignore[arg-type]


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_SUMMARY_WRITER_COMMIT_EVERY", " ")
    assert Example().all == (None, None, "logs", False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("COMMIT_EVERY", "soon"),
        ("COMMIT_EVERY", "0"),
        ("COMMIT_EVERY", "nan"),
        ("PATH_IN_REPO", "../x"),
        ("SQUASH_HISTORY", "maybe"),
        ("REPO_ID", "a/b/c"),
        ("REPO_ID", "hf://a--b/c"),
        ("REPO_ID", "hf://a/b/../c"),
    ],
)
def test_an_invalid_value_raises_and_names_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"HF_SUMMARY_WRITER_{name}", value)
    with pytest.raises(ValueError, match=f"HF_SUMMARY_WRITER_{name}"):
        Example()


@pytest.mark.parametrize(
    ("text", "value"),
    [*((text, True) for text in ("1", "True", "YES", "on")), *((text, False) for text in ("0", "False", "NO", "off"))],
)
def test_a_switch_is_read_in_any_case(monkeypatch: pytest.MonkeyPatch, text: str, value: bool) -> None:
    monkeypatch.setenv("HF_SUMMARY_WRITER_SQUASH_HISTORY", text)
    assert Example().all[3] is value


@pytest.mark.parametrize(
    ("variables", "mode"),
    [
        ({}, Mode.ONLINE),
        ({"HF_HUB_OFFLINE": "0"}, Mode.ONLINE),
        ({"HF_HUB_OFFLINE": "1"}, Mode.OFFLINE),
        ({"TRANSFORMERS_OFFLINE": "YES", "HF_HUB_OFFLINE": ""}, Mode.OFFLINE),
        ({"TRANSFORMERS_OFFLINE": "1", "HF_HUB_OFFLINE": "0"}, Mode.ONLINE),
        ({"HF_SUMMARY_WRITER_MODE": "offline"}, Mode.OFFLINE),
        ({"HF_SUMMARY_WRITER_MODE": "Disabled", "HF_HUB_OFFLINE": "1"}, Mode.DISABLED),
        ({"HF_SUMMARY_WRITER_PUSHED_FOLDER": "/runs"}, Mode.DISABLED),
        ({"HF_SUMMARY_WRITER_PUSHED_FOLDER": "runs"}, Mode.DISABLED),
        ({"HF_SUMMARY_WRITER_PUSHED_FOLDER": "/runs/other"}, Mode.ONLINE),
    ],
    ids=str,
)
def test_the_mode_follows_the_variables(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], mode: Mode) -> None:
    monkeypatch.chdir("/")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert mode_for(Path("/runs/first")) is mode


def test_an_unknown_mode_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_SUMMARY_WRITER_MODE", "on")
    for ask in (mode_for, lambda: HFSummaryWriter("user/run", tmp_path / "run")):
        with pytest.raises(ValueError, match="HF_SUMMARY_WRITER_MODE"):
            ask()
    assert not (tmp_path / "run").exists()


def test_the_limit_of_commits_is_a_whole_number_or_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert commits_per_hour() is None
    for text, limit in {" 8 ": 8, "0": 0, " ": None}.items():
        monkeypatch.setenv("HF_SUMMARY_WRITER_COMMITS_PER_HOUR", text)
        assert commits_per_hour() == limit
    for text in ("many", "-1", "1.5", "²"):
        monkeypatch.setenv("HF_SUMMARY_WRITER_COMMITS_PER_HOUR", text)
        with pytest.raises(ValueError, match="COMMITS_PER_HOUR"):
            commits_per_hour()
