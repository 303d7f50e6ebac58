"""A field of `PushConfig` is an argument, a variable, an option and a line in the docs, and all of them agree."""

from __future__ import annotations

import inspect
import pickle
import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

from hf_summary_writer import CommitScheduler, HFSummaryWriter, scheduler
from hf_summary_writer.checks import PREFIX
from hf_summary_writer.cli.run import run
from hf_summary_writer.cli.sync import sync
from hf_summary_writer.config import Destination, PushConfig, complete_arguments, option_of, unknown_variables

if TYPE_CHECKING:
    from dataclasses import Field

FIELDS = fields(PushConfig)
DOCS = Path(__file__).parents[2] / "docs" / "reference"

# Other arguments of the constructors: the folder, and a client, which may hold a token.
NO_FIELDS: dict[Any, set[str]] = {
    HFSummaryWriter: {"logdir", "hf_api", "kwargs"},
    CommitScheduler: {"folder_path", "hf_api"},
}

# The client has the endpoint, and a scheduler alone has no rank, no run and no logging.
IN_NO_SIGNATURE: dict[Any, set[str]] = {
    HFSummaryWriter: {"endpoint"},
    CommitScheduler: {
        "endpoint",
        "push_every_rank",
        "log_environment",
        "run_state",
        "push_leftovers",
        "on_stall",
        "stall_after",
    },
}


def name_in(constructor: Any, each: Field[Any]) -> str:
    return (constructor is HFSummaryWriter and option_of(each).writer) or each.name


@pytest.mark.parametrize("constructor", [HFSummaryWriter, CommitScheduler])
def test_every_field_is_an_argument_and_every_argument_a_field(constructor: Any) -> None:
    expected = {name_in(constructor, each) for each in FIELDS if each.name not in IN_NO_SIGNATURE[constructor]}
    assert set(inspect.signature(constructor).parameters) - NO_FIELDS[constructor] == expected


@pytest.mark.parametrize("constructor", [HFSummaryWriter, CommitScheduler])
def test_every_argument_is_documented(constructor: Any) -> None:
    documented = set(re.findall(r"^    (?:    )?\**(\w+): ", inspect.getdoc(constructor) or "", re.MULTILINE))
    assert set(inspect.signature(constructor).parameters) <= documented


@pytest.mark.parametrize("constructor", [HFSummaryWriter, CommitScheduler])
def test_defaults_are_those_of_the_fields(constructor: Any) -> None:
    parameters = inspect.signature(constructor).parameters
    # Writers and commands upload a run below a folder of all runs; a scheduler uploads any file of a folder.
    own = {"repo_id", "path_in_repo", "allow_patterns"}
    for each in FIELDS:
        if each.name not in own and name_in(constructor, each) in parameters:
            assert parameters[name_in(constructor, each)].default == each.default, each.name


def test_the_table_of_variables_names_their_arguments() -> None:
    rows = re.findall(rf"^\| `{PREFIX}(\w+)` \| (.*?) \| `", (DOCS / "environment.md").read_text(), re.MULTILINE)
    documented = {variable: set(re.findall(r"`(\w+)`(?!:)", names)) for variable, names in rows}
    assert documented == {
        option.variable: {each.name, option.writer or each.name}
        for each in FIELDS
        if (option := option_of(each)).variable
    }


@pytest.mark.parametrize("command", [sync, run])
def test_commands_have_the_options_of_the_fields(command: Any) -> None:
    flags = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
    expected = {
        flag.strip()
        for each in FIELDS
        for flags_of_one in (option_of(each).flags, *option_of(each).aliases)
        for flag in flags_of_one.split("/")
    }
    assert expected - {""} <= flags


@pytest.mark.parametrize("name", ["every", "close_timeout", "revision", "path_in_repo"])
def test_a_variable_and_an_option_are_checked_alike(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    option = next(option_of(each) for each in FIELDS if each.name == name)
    nothing_like_it = "-1" if name != "path_in_repo" else "../x"
    with pytest.raises(click.BadParameter, match=option.flags):
        sync.make_context("sync", [str(tmp_path), "user/run", f"{option.flags}={nothing_like_it}"])
    monkeypatch.setenv(PREFIX + option.variable, nothing_like_it)
    makers: list[tuple[Any, str]] = [(HFSummaryWriter, "logdir"), (CommitScheduler, "folder_path")]
    for constructor, folder in makers:
        with pytest.raises(ValueError, match=PREFIX + option.variable):
            constructor(repo_id="user/run", **{folder: tmp_path / "run"})
    assert not (tmp_path / "run").exists()


def test_every_documented_variable_is_known_and_others_are_named_with_a_similar_one() -> None:
    documented = set(re.findall(rf"`({PREFIX}\w+)", (DOCS / "environment.md").read_text()))
    assert len(documented) > 15
    assert unknown_variables(dict.fromkeys([*documented, "HF_TOKEN"], "1")) == {}
    assert unknown_variables({f"{PREFIX}PRIVAT": "1", f"{PREFIX}HOURLY_COMMITS": "9"}) == {
        f"{PREFIX}PRIVAT": f"{PREFIX}PRIVATE",
        f"{PREFIX}HOURLY_COMMITS": f"{PREFIX}COMMIT_EVERY",
    }


def test_a_variable_without_effect_is_named_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(f"{PREFIX}PRIVAT", "1")
    monkeypatch.setenv("HF_SUMMARY_WRITER_MODE", "offline")
    scheduler._warn_of_unknown_variables.cache_clear()
    for name in ("a", "b"):
        HFSummaryWriter("user/run", logdir=tmp_path / name).close()
    [warning] = [each for each in caplog.messages if "has no effect" in each]
    assert f"{PREFIX}PRIVAT has no effect: did you mean {PREFIX}PRIVATE?" in warning


SAMPLES: dict[str, Any] = {
    "repo_id": "user/run",
    "endpoint": "https://hub",
    "repo_type": "dataset",
    "revision": "dev",
    "path_in_repo": "logs/run",
    "private": True,
    "every": 0.5,
    "allow_patterns": ("*.txt",),
    "ignore_patterns": ("a", "b"),
    "squash_history": True,
    "model_card": False,
    "run_state": False,
    "push_leftovers": True,
    "check": True,
    "close_timeout": 3.0,
    "log_environment": True,
    "token": "hf_secret",
    "push_on_sigterm": True,
    "push_every_rank": True,
    "on_commit": print,
    "on_error": print,
    "on_stall": print,
    "stall_after": 3.0,
}


def sample() -> PushConfig:
    return PushConfig(**SAMPLES)


@pytest.mark.parametrize("repo_type", ["model", "bucket"])
def test_an_interval_of_the_user_is_kept(repo_type: str) -> None:
    assert PushConfig(repo_id="a", endpoint="https://hub", repo_type=repo_type, every=0.5).minutes == 0.5


def test_every_field_has_a_sample_other_than_its_default() -> None:
    assert list(SAMPLES) == [each.name for each in FIELDS]
    assert all(SAMPLES[each.name] != each.default for each in FIELDS)


@pytest.mark.parametrize("constructor", [HFSummaryWriter, CommitScheduler])
def test_arguments_of_a_constructor_make_the_same_config(constructor: Any) -> None:
    arguments = sample().arguments_for(constructor)
    again = PushConfig.from_arguments(arguments, "https://hub")
    for each in FIELDS:
        if each.name not in IN_NO_SIGNATURE[constructor]:
            assert getattr(again, each.name) == SAMPLES[each.name], each.name


def test_none_means_the_default_and_the_defaults_are_those_of_the_docs() -> None:
    unset = {each.name: None for each in FIELDS if option_of(each).none_is_unset and each.name != "endpoint"}
    config = PushConfig.from_arguments({**unset, "repo_id": "user/run"}, "https://hub")
    assert config == PushConfig(repo_id="user/run", endpoint="https://hub")
    assert (config.minutes, config.close_timeout, config.stall_after) == (5, 20, 600)


def test_a_password_in_the_default_endpoint_is_left_out() -> None:
    assert PushConfig.from_arguments({"repo_id": "user/run"}, "https://me:word@hub").endpoint == "https://hub"


def test_an_explicit_endpoint_is_used_although_the_default_one_is_invalid() -> None:
    assert PushConfig.from_arguments({"repo_id": "user/run", "endpoint": "https://hub"}, "nonsense") == PushConfig(
        repo_id="user/run", endpoint="https://hub"
    )


def test_a_ledger_keeps_the_settings_for_later_processes() -> None:
    config = sample()
    again = PushConfig.from_ledger(config.destination, config.settings)
    assert again.destination == config.destination
    assert (
        again.settings
        == config.settings
        == {
            "private": True,
            "allow": ["*.txt"],
            "ignore": ["a", "b"],
            "squash": True,
            "card": False,
        }
    )


def test_settings_of_older_ledgers_are_read() -> None:
    where = Destination("https://hub", "model", "run", "main", "")
    config = PushConfig.from_ledger(where, {"allow": None, "ignore": None, "private": None, "squash": True})
    assert (config.allow_patterns, config.squash_history, config.model_card) == (None, True, True)


@pytest.mark.parametrize(
    "settings", [3, [], {"private": "yes"}, {"squash": 1}, {"allow": [1]}, {"ignore": 5}, {"card": []}], ids=str
)
def test_invalid_settings_are_refused(settings: Any) -> None:
    with pytest.raises(TypeError):
        PushConfig.from_ledger(Destination("https://hub", "model", "run", "main", ""), settings)


def test_a_config_shows_no_token_and_can_be_pickled() -> None:
    assert "hf_secret" not in repr(sample())
    assert pickle.loads(pickle.dumps(sample())) == sample()


@pytest.mark.parametrize(
    ("uri", "destination"),
    [
        ("hf://user/run", ("model", "user/run", "main", "")),
        ("hf://run", ("model", "run", "main", "")),
        ("hf://models/user/run/logs/all", ("model", "user/run", "main", "logs/all")),
        ("hf://datasets/user/run@dev/logs", ("dataset", "user/run", "dev", "logs")),
        ("hf://spaces/user/run@runs%2F7", ("space", "user/run", "runs/7", "")),
        ("hf://datasets/user/run@refs/pr/3/logs", ("dataset", "user/run", "refs/pr/3", "logs")),
        ("hf://buckets/user/logs", ("bucket", "user/logs", "", "")),
        ("hf://buckets/user/logs/of/all@once", ("bucket", "user/logs", "", "of/all@once")),
    ],
)
def test_a_uri_names_the_destination(uri: str, destination: tuple[str, ...]) -> None:
    config = PushConfig.from_arguments({"repo_id": uri, "repo_type": None, "revision": None}, "https://hub")
    assert config.destination == Destination("https://hub", *destination)


def test_a_uri_is_read_as_the_client_reads_it() -> None:
    parse = pytest.importorskip("huggingface_hub", "1.33").parse_hf_uri
    for uri in ("hf://user/run/logs", "hf://datasets/user/run@dev/logs", "hf://buckets/user/logs/all@once"):
        read = parse(uri)
        where = PushConfig.from_arguments({"repo_id": uri}, "https://hub").destination
        assert (read.type, read.id, read.path_in_repo) == (where.repo_type, where.repo_id, where.path)


def test_a_bucket_has_no_branch_and_no_history() -> None:
    config = PushConfig.from_arguments({"repo_id": "user/logs", "repo_type": "bucket"}, "https://hub")
    assert (config.destination.revision, config.minutes) == ("", 0.25)
    assert PushConfig.from_ledger(config.destination, config.settings).destination == config.destination
    assert "--revision" not in config.sync_command(Path("/runs"), "https://hub")
    for refused, variable in (({"revision": "main"}, "REVISION"), ({"squash_history": True}, "SQUASH_HISTORY")):
        with pytest.raises(ValueError, match=f"a bucket has no .* unset {PREFIX}{variable}"):
            PushConfig.from_arguments({"repo_id": "hf://buckets/user/logs", **refused}, "https://hub")


@pytest.mark.parametrize(
    "uri",
    [
        "hf://",
        "hf://buckets/logs",
        "hf://buckets/user/logs@main",
        "hf://datasets/",
        "hf://user/run@",
        "hf:///x",
        "hf://a--b/c",
        "hf://a/b/../c",
        "hf://dataset/user/run",
        "hf://bucket/user/logs/run",
        "hf://model",
    ],
)
def test_an_invalid_uri_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match=r"hf://|repo_id|path_in_repo"):
        PushConfig.from_arguments({"repo_id": uri}, "https://hub")


@pytest.mark.parametrize(
    ("address", "meant"),
    [
        ("https://huggingface.co/user/run/tensorboard", "'user/run'"),
        ("https://huggingface.co/datasets/user/run/tree/main", "'hf://datasets/user/run'"),
        ("http://me:word@127.0.0.1:8080/buckets/user/logs", "'hf://buckets/user/logs'"),
        ("https://huggingface.co/user/run?not-for-all-audiences=true", "'user/run'"),
        ("https://huggingface.co/user", "'namespace/name'"),
        ("https://huggingface.co/user/r%C3%BCn", "'namespace/name'"),
    ],
)
def test_the_address_of_a_page_names_the_repo_that_it_shows(address: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"is an address: write {re.escape(meant)}$") as caught:
        PushConfig.from_arguments({"repo_id": address}, "https://hub")
    assert "word" not in str(caught.value)


def test_a_uri_overrides_the_environment_and_conflicts_with_arguments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    got: list[dict[str, object]] = []

    @complete_arguments
    def constructor(
        repo_id: object = None, repo_type: object = None, repo_revision: object = None, path_in_repo: object = "logs"
    ) -> None:
        got.append({"repo": repo_id, "type": repo_type, "revision": repo_revision, "path": path_in_repo})

    monkeypatch.setenv(f"{PREFIX}REPO_TYPE", "space")
    monkeypatch.setenv(f"{PREFIX}REVISION", "other")
    monkeypatch.setenv(f"{PREFIX}REPO_ID", "hf://datasets/user/run@dev")
    constructor()
    assert got.pop() == {"repo": "user/run", "type": "dataset", "revision": "dev", "path": "logs"}
    constructor("hf://user/own/folder")
    assert got.pop() == {"repo": "user/own", "type": "model", "revision": "other", "path": "folder"}
    constructor("hf://user/own/", repo_revision="mine")
    assert got.pop() == {"repo": "user/own", "type": "model", "revision": "mine", "path": "logs"}
    for contradiction in ({"repo_type": "model"}, {"repo_revision": "main"}):
        with pytest.raises(ValueError, match="leave one of them out"):
            constructor(**contradiction)


def test_other_parts_of_a_uri_reach_the_writer_of_a_wrapper(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    got: list[dict[str, object]] = []

    @complete_arguments
    def wrapper(repo_id: object = None, name: object = "x", path_in_repo: object = "logs", **kwargs: object) -> None:
        got.append({"repo_id": repo_id, "name": name, "path_in_repo": path_in_repo, **kwargs})

    wrapper("hf://datasets/user/run@dev", "y", close_timeout=3)
    assert got.pop() == {
        "repo_id": "user/run",
        "repo_type": "dataset",
        "repo_revision": "dev",
        "name": "y",
        "path_in_repo": "logs",
        "close_timeout": 3,
    }
    monkeypatch.setenv(f"{PREFIX}PATH_IN_REPO", "elsewhere")
    wrapper("user/run")
    assert got.pop() == {"repo_id": "user/run", "name": "x", "path_in_repo": "elsewhere"}
    with pytest.raises(ValueError, match="leave one of them out"):
        wrapper("hf://datasets/user/run", repo_type="model")
