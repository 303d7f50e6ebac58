"""The command that is printed says, and leaves unsaid, what the command line understands as the same."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hf_summary_writer.cli.options import Target
from hf_summary_writer.cli.sync import sync
from hf_summary_writer.config import UNSAID, Destination, Settings, sync_command
from hf_summary_writer.folder.patterns import PathFilter
from hf_summary_writer.hub.client import default_endpoint

if TYPE_CHECKING:
    from hf_summary_writer.push.push import Plan

PUBLIC = "https://huggingface.co"
FOLDER = Path("/")  # one that exists, since the command line looks
HERE = Destination(PUBLIC, "model", "user/run", "main", "tensorboard/run")
PATTERNS = st.none() | st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"))).map(tuple)


def plan_of(words: list[str]) -> Plan:
    options = sync.make_context("sync", words).params
    for name in ("watch", "every", "close_timeout", "dry_run", "as_json"):
        del options[name]
    return Target(**{key: value for key, value in options.items() if key not in {"logdir", "repo_id"}}).plan(
        options["logdir"], options["repo_id"]
    )


def test_the_usual_command_is_short() -> None:
    command = sync_command(HERE, FOLDER, UNSAID, PUBLIC)
    assert command == "hf-summary-writer sync / user/run --into tensorboard/run"


@given(
    st.builds(
        Destination,
        st.just(default_endpoint()),
        st.sampled_from(["model", "dataset", "space"]),
        st.sampled_from(["run", "user/run"]),
        st.sampled_from(["main", "dev", "runs/1"]),
        st.sampled_from(["", "x", "it's/a run", "--x"]),
    ),
    st.builds(Settings, PATTERNS, PATTERNS, st.none() | st.booleans(), squash=st.booleans(), card=st.booleans()),
)
@example(HERE, Settings(allow=()))
@example(HERE, Settings(allow=("--into", "-x"), ignore=("--", "a b")))
def test_the_command_line_understands_it_as_it_was_meant(where: Destination, how: Settings) -> None:
    _, _, *words = shlex.split(sync_command(where, FOLDER, how, where.endpoint))
    plan = plan_of(words)
    assert plan.destination == where
    assert (plan.settings.private, plan.settings.squash, plan.settings.card) == (how.private, how.squash, how.card)
    assert plan.settings.ignore == (how.ignore or None)
    if how.allow:
        assert plan.settings.allow == how.allow
    else:
        assert PathFilter(plan.settings.allow)("a/b\nc.txt") == (how.allow is None)


@pytest.mark.parametrize(
    ("endpoint", "assumed", "named"),
    [
        (PUBLIC, PUBLIC, False),
        ("https://hub", PUBLIC, True),
        # Pasted where nobody has set the variable, or somebody has.
        ("https://hub", "https://hub", True),
        (PUBLIC, "https://hub", True),
    ],
)
def test_the_hub_is_named_unless_any_shell_means_it(endpoint: str, assumed: str, named: bool) -> None:
    where = Destination(endpoint, "model", "user/run", "main", "")
    assert sync_command(where, FOLDER, UNSAID, assumed).startswith(f"HF_ENDPOINT={endpoint} ") == named
