"""`hf-summary-writer get` prints scalars on a terminal and in pipes."""

from __future__ import annotations

import csv
import io
import json
import math
import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

import commands
from events import wait_until
from faults.proxy import Answer, FaultProxy, Hang
from hf_summary_writer import HFSummaryWriter
from hf_summary_writer.events import EventWriter

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess


SECONDS = 60.0


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    for run in ("first", "second"):
        with EventWriter(tmp_path / "runs" / run) as writer:
            for step, value in enumerate([0.5, math.inf, 0.25]):
                writer.add_scalar("train/loss", value, step, walltime=1e9 + step)
                writer.add_scalar("lr", 0.1, step)
    return tmp_path / "runs"


def test_a_table_shows_the_values(hub: HubProcess, logs: Path) -> None:
    asked = commands.run(hub, "get", logs, "train/*", "--run", "first", home=logs, TZ="UTC")
    assert asked.returncode == 0, asked.stderr
    assert [line.split() for line in asked.stdout.splitlines()] == [
        ["run", "tag", "step", "value", "time"],
        ["first", "train/loss", "0", "0.5", "2001-09-09", "01:46:40"],
        ["first", "train/loss", "1", "inf", "2001-09-09", "01:46:41"],
        ["first", "train/loss", "2", "0.25", "2001-09-09", "01:46:42"],
    ]


def test_without_a_token_a_repo_needs_its_namespace(hub: HubProcess, tmp_path: Path) -> None:
    anonymous = SimpleNamespace(endpoint=hub.endpoint, token="")
    asked = commands.invoke(anonymous, "get", "my-runs", home=tmp_path)
    assert asked.returncode == 1
    assert "there is no token that names the user: write user/my-runs, or log in" in asked.stderr


@pytest.mark.parametrize("command", ["get", "view"])
def test_a_folder_for_downloads_that_cannot_be_created_is_named(hub: HubProcess, tmp_path: Path, command: str) -> None:
    (tmp_path / "file").touch()
    asked = commands.invoke(hub, command, "user/runs", "--folder", tmp_path / "file" / "copy", home=tmp_path)
    assert asked.returncode == 1
    assert asked.stderr == f"Error: {tmp_path}/file/copy cannot be created: Not a directory\n"


def test_json_and_csv_hold_the_same_values(hub: HubProcess, logs: Path) -> None:
    in_json = commands.objects(commands.invoke(hub, "get", logs, "train/loss", "--json", home=logs).stdout)
    in_csv = csv.DictReader(io.StringIO(commands.invoke(hub, "get", logs, "train/loss", "--csv", home=logs).stdout))
    assert [each["value"] for each in in_json] == 2 * [0.5, "Infinity", 0.25]
    assert [float(each["value"]) for each in in_csv] == 2 * [0.5, math.inf, 0.25]
    assert in_json[5] == {"run": "second", "tag": "train/loss", "step": 2, "value": 0.25, "wall_time": 1e9 + 2}


def test_without_a_tag_the_tags_are_listed(hub: HubProcess, logs: Path) -> None:
    listed = commands.objects(commands.invoke(hub, "get", logs, "--json", home=logs).stdout)
    assert [(each["run"], each["tag"], each["values"], each["last_step"]) for each in listed] == [
        (run, tag, 3, 2) for run in ("first", "second") for tag in ("lr", "train/loss")
    ]


def test_scalars_of_a_repo_are_printed(hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path) -> None:
    with HFSummaryWriter(repo_id, tmp_path / "first", hf_api=api, repo_private=True) as writer:
        writer.add_scalar("loss", 0.5, 7)
    asked = commands.invoke(hub, "get", repo_id, "loss", "--json", home=tmp_path)
    assert [(each["run"], each["step"]) for each in commands.objects(asked.stdout)] == [("tensorboard/first", 7)]
    assert asked.stderr == ""
    missing = commands.invoke(hub, "get", f"{repo_id}x", "loss", home=tmp_path)
    assert missing.returncode == 1
    assert "is no model at" in missing.stderr
    assert "Traceback" not in missing.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["trainloss"], "has no tag 'trainloss': there are 'train/loss'"),
        (["lr", "--run", "third"], "has no run 'third': there are"),
    ],
)
def test_a_missing_tag_or_run_is_an_error_in_one_line(
    hub: HubProcess, logs: Path, arguments: list[str], reason: str
) -> None:
    asked = commands.invoke(hub, "get", logs, *arguments, home=logs)
    assert (asked.returncode, asked.stdout) == (1, "")
    (line,) = asked.stderr.splitlines()
    assert reason in line


def test_an_unreachable_hub_is_an_error_that_mentions_the_folder(tmp_path: Path) -> None:
    asked = commands.invoke(commands.Nowhere(), "get", "runs/first", "loss", home=tmp_path)
    assert asked.returncode == 1
    assert "there is no folder 'runs/first' on this machine, and runs/first could not be read" in asked.stderr


@pytest.mark.parametrize("options", [[], ["--csv"], ["--json"]])
def test_control_characters_in_names_are_not_printed_on_a_terminal(
    hub: HubProcess, tmp_path: Path, options: list[str]
) -> None:
    with EventWriter(tmp_path / "runs" / "\x1b]0;run\x07") as writer:
        writer._cleans_tags = False
        writer.add_scalar("\x1b[2Jloss", 1.0, 1)
    shown = commands.on_terminal(hub, "get", tmp_path / "runs", "*", *options, home=tmp_path)
    assert shown.code == 0
    assert "\x1b" not in shown.text
    assert "loss" in shown.text
    missing = commands.on_terminal(hub, "get", tmp_path / "runs", "nothing", *options, home=tmp_path)
    assert missing.code == 1
    assert "\x1b" not in missing.text


def test_a_pipe_gets_names_unchanged(hub: HubProcess, tmp_path: Path) -> None:
    name = 'a "quoted", name\nof two lines'
    with EventWriter(tmp_path / "runs") as writer:
        writer._cleans_tags = False
        writer.add_scalar(name, 1.0, 1)
    text = commands.invoke(hub, "get", tmp_path / "runs", "*", "--csv", home=tmp_path).stdout
    assert [row["tag"] for row in csv.DictReader(io.StringIO(text))] == [name]
    text = commands.invoke(hub, "get", tmp_path / "runs", "*", "--json", home=tmp_path).stdout
    assert json.loads(text)["tag"] == name


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
@pytest.mark.parametrize("form", ["--csv", "--json", None])
def test_names_that_the_output_cannot_encode_are_escaped(
    hub: HubProcess, tmp_path: Path, form: str | None, errors: str
) -> None:
    with EventWriter(tmp_path / "runs" / "実験") as writer:
        writer.add_scalar("損失", 1.0, 1)
    words = ["get", tmp_path / "runs", "損失", *([form] if form else [])]
    shown = commands.run(hub, *words, home=tmp_path, PYTHONIOENCODING=f"ascii:{errors}")
    assert shown.returncode == 0, shown.stderr
    assert r"\u5b9f\u9a13" in shown.stdout
    assert r"\u640d\u5931" in shown.stdout


@pytest.mark.parametrize("option", ["--endpoint=http://127.0.0.1:9", "--token=hf_x", "--folder=copy"])
def test_options_for_repos_are_refused_with_a_local_folder(hub: HubProcess, logs: Path, option: str) -> None:
    asked = commands.invoke(hub, "get", logs, option, home=logs)
    assert asked.returncode == 2
    assert f"{option.partition('=')[0]} has no meaning for a folder" in asked.stderr


@pytest.mark.parametrize(("body", "said"), [(b"<html>", "JSONDecodeError"), (b"{}", "KeyError: 'name'")])
def test_a_login_page_instead_of_the_hub_is_reported(hub: HubProcess, tmp_path: Path, body: bytes, said: str) -> None:
    with FaultProxy(hub) as portal:
        portal.add("*", "whoami", Answer(200, body=body))
        asked = commands.invoke(portal, "get", "run", home=tmp_path)
    assert asked.returncode == 1
    assert f"what answered is not the Hub ({said}" in asked.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_download_and_removes_its_temporary_copy(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path, number: signal.Signals
) -> None:
    with HFSummaryWriter(repo_id, tmp_path / "first", hf_api=api) as writer:
        writer.add_scalar("loss", 0.5, 7)
    (tmp_path / "temporary").mkdir()
    with FaultProxy(hub) as proxy:
        proxy.add("GET", "/resolve/", Hang(), times=99)
        with commands.start(proxy, "get", repo_id, home=tmp_path, TMPDIR=str(tmp_path / "temporary")) as process:
            wait_until(lambda: any("/resolve/" in seen.path for seen in proxy.requests), SECONDS)
            process.send_signal(number)
            _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + number, errors
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_missing_file_of_certificates_is_told_from_a_missing_repo(hub: HubProcess, tmp_path: Path) -> None:
    asked = commands.run(hub, "get", "user/run", home=tmp_path, SSL_CERT_FILE=str(tmp_path / "missing.pem"))
    assert asked.returncode == 1
    assert "could not be read from" in asked.stderr
    assert "SSL_CERT_FILE" in asked.stderr


def test_the_url_of_a_page_is_not_a_folder(hub: HubProcess, tmp_path: Path) -> None:
    asked = commands.invoke(hub, "get", f"{hub.endpoint}/user/run", home=tmp_path)
    assert asked.returncode == 2
    assert "is an address: write 'user/run'" in asked.stderr


def test_a_kept_copy_may_be_in_the_home_folder(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with HFSummaryWriter(repo_id, tmp_path / "first", hf_api=api) as writer:
        writer.add_scalar("loss", 0.5, 7)
    asked = commands.invoke(hub, "get", repo_id, "loss", "--folder=~/copy", home=tmp_path)
    assert asked.returncode == 0, asked.stderr
    assert list((tmp_path / "home" / "copy").rglob("*.tfevents.*"))
