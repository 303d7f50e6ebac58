"""Every option of a command has an effect in every mode or is a usage error."""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

import commands
from hf_summary_writer.cli import main
from hf_summary_writer.cli.options import config_of
from hf_summary_writer.cli.run import run
from hf_summary_writer.cli.sync import _check_modes, _configs, sync
from hf_summary_writer.config import Destination, PushConfig, option_of
from hf_summary_writer.folder.disk import STATE_FOLDER
from hf_summary_writer.folder.ledger import Ledger
from hf_summary_writer.hub.client import default_endpoint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# A value of each option other than its default, in one of its spellings.
VALUES = {
    "--endpoint": ["--endpoint", "https://hub.example"],
    "--repo-type": ["--repo-type", "dataset"],
    "--revision": ["--revision", "dev"],
    "--path-in-repo": ["--path-in-repo", "logs"],
    "--into": ["--into", "logs/run"],
    "--private/--public": ["--no-private"],
    "--every": ["--every", "0.5"],
    "--allow": ["--include", "*.txt"],
    "--ignore": ["--exclude", "*.tmp"],
    "--squash-history/--no-squash-history": ["--squash-history"],
    "--model-card/--no-model-card": ["--no-model-card"],
    "--close-timeout": ["--close-timeout", "3"],
    "--token": ["--token", "hf_other"],
}
OPTIONS = {each.name for each in fields(PushConfig)} | {"into"}
MODES = {"once": [], "watch": ["--watch"], "dry run": ["--dry-run"]}


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """Return a folder that was pushed before."""
    folder = tmp_path / "run"
    folder.mkdir()
    where = Destination(default_endpoint(), "model", "user/run", "main", "tensorboard/run")
    ledger = Ledger(folder / STATE_FOLDER / f"{where.key}.jsonl", where)
    ledger.record_config(PushConfig.from_ledger(where, {}))
    return folder


def planned(folder: Path, *words: str) -> list[tuple[Path, PushConfig]]:
    given = sync.make_context("sync", [str(folder), *words]).params
    options = {name: value for name, value in given.items() if name in OPTIONS}
    modes = {name: given[name] for name in ("watch", "dry_run", "exit_code", "verify")}
    _check_modes(options, given["repo_id"], **modes)
    return _configs(given["logdir"], given["repo_id"], options, watch=given["watch"])[0]


def test_there_is_a_value_for_every_option() -> None:
    assert set(VALUES) == {option_of(each).flags for each in fields(PushConfig)} - {""} | {"--into"}


@pytest.mark.parametrize("option", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("repo_id", [[], ["user/run"]], ids=["known", "named"])
def test_sync_uses_or_refuses_every_option(
    known: Path, repo_id: Sequence[str], mode: Sequence[str], option: Sequence[str]
) -> None:
    plain = planned(known, *repo_id, *mode)
    assert plain[0][1].destination.repo_id == "user/run"
    try:
        changed = planned(known, *repo_id, *mode, *option)
    except click.UsageError as error:
        refused: str | None = error.message
    else:
        refused = None
    assert changed != plain if refused is None else option[0] in refused


@pytest.mark.parametrize("option", VALUES.values(), ids=VALUES)
def test_run_uses_every_option(tmp_path: Path, option: Sequence[str]) -> None:
    def config(*words: str) -> PushConfig:
        given = run.make_context("run", ["user/run", *words, "--", "true"]).params
        return config_of(tmp_path, given["repo_id"], {name: given[name] for name in OPTIONS & set(given)})

    assert config(*option) != config()


@pytest.mark.parametrize(
    "words",
    [
        ["user/run", "--watch", "--dry-run"],
        ["user/run", "--into", "a", "--path-in-repo", "b"],
        ["user/run", "--into", ""],
        ["user/run", "--exit-code"],
        ["user/run", "--verify", "--watch"],
        ["user/run", "--verify", "--dry-run"],
        ["hf://datasets/user/run", "--repo-type", "model"],
        ["hf://user/run/logs", "--path-in-repo", "b"],
        ["a/b/c"],
        ["user/run", "--every", "0"],
        ["user/run", "--endpoint", "hub.example"],
        ["user/run", "--endpoint", "https://user:password@hub.example"],
    ],
    ids=" ".join,
)
def test_options_that_contradict_each_other_are_refused(known: Path, words: list[str]) -> None:
    with pytest.raises(click.UsageError) as caught:
        planned(known, *words)
    assert "password@" not in caught.value.message


@pytest.mark.parametrize("name", ["MODE", "COMMITS_PER_HOUR"])
@pytest.mark.parametrize("words", [["sync"], ["sync", "--watch"], ["run"]], ids=" ".join)
def test_an_invalid_variable_is_a_usage_error(
    known: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], name: str
) -> None:
    monkeypatch.setenv(f"HF_SUMMARY_WRITER_{name}", "some")
    rest = [str(known)] if words[0] == "sync" else ["user/run", f"--logdir={known}", "--", "true"]
    done = commands.invoke(commands.Nowhere(), *words, *rest, home=known.parent)
    assert (done.returncode, f"HF_SUMMARY_WRITER_{name} is 'some'" in done.stderr) == (2, True)


@pytest.mark.parametrize("words", [["check", ""], ["view", ""], ["get", ""], ["status", ""], ["run", "", "--", "true"]])
def test_an_empty_name_of_a_repo_is_a_usage_error(words: list[str], tmp_path: Path) -> None:
    done = commands.invoke(commands.Nowhere(), *words, home=tmp_path)
    assert done.returncode == 2
    assert "--logdir ''" not in done.stderr


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (["python", "train.py"], "-- is missing"),
        (["--", "python", "train.py"], "REPO_ID is missing"),
        (["user/run", "--"], "COMMAND is missing"),
        (["user/run"], "-- is missing"),
    ],
)
def test_run_needs_a_repo_and_a_command_with_a_separator_between(words: list[str], missing: str) -> None:
    with pytest.raises(click.UsageError, match=missing):
        run.make_context("run", words)


def test_the_version_has_a_short_option() -> None:
    shown = CliRunner().invoke(main, ["-V"])
    assert (shown.exit_code, version("hf-summary-writer") in shown.output) == (0, True)


def test_ctrl_c_exits_with_code_130(known: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    # Import the module by name: the package attribute of that name is the command.
    monkeypatch.setattr(import_module("hf_summary_writer.cli.status"), "folders_known_here", interrupted)
    ended = commands.invoke(commands.Nowhere(), "status", known, home=known.parent)
    assert (ended.returncode, "Traceback" in ended.stderr) == (130, False)
