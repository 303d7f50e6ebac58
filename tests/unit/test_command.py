"""The command line parses a printed command into the config of the process that printed it."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hf_summary_writer.cli.options import config_of
from hf_summary_writer.cli.sync import sync
from hf_summary_writer.config import Destination, PushConfig, known_sync_command
from hf_summary_writer.folder.patterns import PathFilter
from hf_summary_writer.hub.client import default_endpoint

PUBLIC = "https://huggingface.co"
FOLDER = Path("/")  # the command line requires an existing folder
HERE = Destination(PUBLIC, "model", "user/run", "main", "tensorboard/run")
PATTERNS = st.none() | st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"))).map(tuple)


def config_at(where: Destination, **settings: object) -> PushConfig:
    return PushConfig.from_arguments(
        {**dataclasses.asdict(where), "path_in_repo": where.path, **settings}, where.endpoint
    )


def config_of_words(words: list[str]) -> PushConfig:
    parsed = sync.make_context("sync", words).params
    names = {each.name for each in dataclasses.fields(PushConfig)} | {"into"}
    return config_of(parsed["logdir"], parsed["repo_id"], {name: parsed[name] for name in names & set(parsed)})


def test_the_usual_command_is_short() -> None:
    command = config_at(HERE).sync_command(FOLDER, PUBLIC)
    assert command == "hf-summary-writer sync / user/run --into tensorboard/run"


@given(
    st.builds(
        Destination,
        st.sampled_from([default_endpoint(), "https://hub.example"]),
        st.sampled_from(["model", "dataset", "space"]),
        st.sampled_from(["run", "user/run"]),
        st.sampled_from(["main", "dev", "runs/1"]),
        st.sampled_from(["", "x", "it's/a run", "--x"]),
    ),
    st.fixed_dictionaries(
        {
            "allow_patterns": PATTERNS,
            "ignore_patterns": PATTERNS,
            "private": st.none() | st.booleans(),
            "squash_history": st.booleans(),
            "model_card": st.booleans(),
        }
    ),
)
@example(HERE, {"allow_patterns": ()})
@example(HERE, {"allow_patterns": ("--into", "-x"), "ignore_patterns": ("--", "a b")})
def test_the_command_line_reads_the_config_that_was_printed(where: Destination, settings: dict[str, object]) -> None:
    config = config_at(where, **settings)
    _, _, *words = shlex.split(config.sync_command(FOLDER, where.endpoint))
    read = config_of_words(words)
    assert read.destination == where
    patterns = read.allow_patterns
    for path in ("a/b\nc.txt", "events.out.tfevents.1.host"):
        assert PathFilter(patterns)(path) == PathFilter(config.allow_patterns)(path)
    assert dataclasses.replace(read, repo_type=config.repo_type, revision=config.revision) == dataclasses.replace(
        config, allow_patterns=patterns
    )


@pytest.mark.parametrize(
    ("endpoint", "assumed", "named"),
    [
        (PUBLIC, PUBLIC, False),
        ("https://hub", PUBLIC, True),
        # Pasted into a shell with or without HF_ENDPOINT set.
        ("https://hub", "https://hub", True),
        (PUBLIC, "https://hub", True),
    ],
)
def test_the_endpoint_is_named_unless_it_is_the_public_default(endpoint: str, assumed: str, named: bool) -> None:
    config = config_at(Destination(endpoint, "model", "user/run", "main", ""))
    assert config.sync_command(FOLDER, assumed).endswith(f" --endpoint {endpoint}") == named


@pytest.mark.parametrize(("endpoint", "named"), [(PUBLIC, ""), ("https://hub", " --endpoint https://hub")])
def test_the_command_for_known_runs_names_no_repo(endpoint: str, named: str) -> None:
    assert known_sync_command(Path("/my runs"), endpoint) == f"hf-summary-writer sync '/my runs'{named}"


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_a_command_printed_by_an_offline_process_turns_offline_mode_off(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    assert config_at(HERE).sync_command(FOLDER, PUBLIC).startswith("HF_HUB_OFFLINE=0 hf-summary-writer sync ")
