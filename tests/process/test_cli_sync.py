"""`hf-summary-writer sync` with `--watch`, `--dry-run`, `--json` and links, and during an outage."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest
from tensorboardX import SummaryWriter

import commands
import remote
import scripts
from events import wait_until
from faults.proxy import FaultProxy, Hang
from hf_summary_writer.cli.watching import FolderScheduler, start_together
from hf_summary_writer.config import PushConfig
from hf_summary_writer.folder import STATE_FOLDER
from hub_process import HubProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from huggingface_hub import HfApi

SECONDS = 60.0


@pytest.fixture
def logdir(tmp_path: Path) -> Path:
    folder = tmp_path / "run 1"
    with SummaryWriter(str(folder)) as writer:
        writer.add_scalar("loss", 1.0, 0)
    return folder


def test_a_dry_run_lists_files_and_bytes_without_a_request(hub: HubProcess, repo_id: str, logdir: Path) -> None:
    before = hub.requests
    listed = commands.invoke(hub, "sync", logdir, repo_id, "--dry-run", "--exit-code", "--json", home=logdir.parent)
    (found,) = commands.objects(listed.stdout)
    (file,) = logdir.iterdir()
    size = file.stat().st_size
    path = f"tensorboard/run 1/{file.name}"
    assert found["files"] == [{"path": file.name, "path_in_repo": path, "bytes": size}]
    assert (found["bytes"], found["repo_id"], listed.returncode) == (size, repo_id, 1)
    assert hub.requests == before
    text = commands.invoke(hub, "sync", logdir, repo_id, "--dry-run", home=logdir.parent)
    assert file.name in text.stdout
    assert text.returncode == 0
    assert list(logdir.iterdir()) == [file]


def test_after_a_sync_a_dry_run_lists_nothing(hub: HubProcess, repo_id: str, logdir: Path) -> None:
    sent = commands.invoke(hub, "sync", logdir, repo_id, "--json", home=logdir.parent)
    (found,) = commands.objects(sent.stdout)
    assert sent.returncode == 0, sent.stderr
    assert (found["missing"], found["error"], found["repo_id"], len(found["commits"])) == (0, None, repo_id, 1)
    assert found["commits"][0]["files"] == 1
    listed = commands.invoke(hub, "sync", logdir, "--dry-run", "--exit-code", home=logdir.parent)
    assert listed.returncode == 0
    assert "0 files" in listed.stdout


def test_a_folder_without_matching_files_exits_with_3(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "metrics.jsonl").write_text("{}")
    before = hub.requests
    done = commands.invoke(hub, "sync", tmp_path / "logs", repo_id, home=tmp_path)
    assert done.returncode == 3
    assert "no file in" in done.stderr
    assert "matches *.tfevents.* or embeddings: nothing was sent" in done.stderr
    assert hub.requests == before
    name = repo_id.rpartition("/")[2]
    done = commands.invoke(hub, "sync", tmp_path / "logs", name, "--include", "*.jsonl", home=tmp_path)
    assert done.returncode == 0, done.stderr
    host = hub.endpoint.removeprefix("http://")
    assert f"is in {api.whoami()['name']}/{name} on {host}" in done.stdout
    assert "1 file, 2 bytes" in done.stdout


def test_an_error_is_printed_as_json_too(logdir: Path, repo_id: str) -> None:
    failed = commands.invoke(commands.Nowhere(), "sync", logdir, repo_id, "--json", home=logdir.parent)
    (found,) = commands.objects(failed.stdout)
    assert failed.returncode == 1
    assert found["error"]
    assert found["missing"] == 1
    assert commands.Nowhere.token not in failed.stdout + failed.stderr


def test_every_run_in_a_folder_is_uploaded_to_its_earlier_destination(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    body = "HFSummaryWriter(repo_id, logdir=logdir).add_scalar('loss', 1, 1)"
    for name in ("a", ".b"):
        assert scripts.run(body, hub, tmp_path / "runs" / name, repo_id).returncode == 0
        with SummaryWriter(str(tmp_path / "runs" / name)) as writer:
            writer.add_scalar("loss", 2.0, 2)
    sent = commands.invoke(hub, "sync", tmp_path / "runs", home=tmp_path)
    assert sent.returncode == 0, sent.stderr
    assert remote.files(api, repo_id) == remote.under(tmp_path / "runs", "tensorboard")


def test_an_uploaded_run_that_is_kept_elsewhere_behind_a_link_is_uploaded_with_the_others(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    runs, elsewhere = tmp_path / "runs", tmp_path / "large" / "a"
    body = "HFSummaryWriter(repo_id, logdir=logdir).add_scalar('loss', 1, 1)"
    for logdir in (elsewhere, runs / "b"):
        assert scripts.run(body, hub, logdir, repo_id).returncode == 0
        with SummaryWriter(str(logdir)) as writer:
            writer.add_scalar("loss", 2.0, 2)
    (runs / "a").symlink_to(elsewhere)
    (runs / "latest").symlink_to("b")
    shown = commands.invoke(hub, "status", runs, "--json", home=tmp_path)
    assert [each["folder"] for each in commands.objects(shown.stdout)] == [f"{runs}/a", f"{runs}/b"]
    sent = commands.invoke(hub, "sync", runs, home=tmp_path)
    assert sent.returncode == 0, sent.stderr
    files = remote.under(elsewhere, "tensorboard/a") | remote.under(runs / "b", "tensorboard/b")
    assert remote.files(api, repo_id) == files


def test_runs_of_unknown_destination_beside_known_ones_are_named(hub: HubProcess, repo_id: str, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    body = "HFSummaryWriter(repo_id, logdir=logdir).add_scalars('loss', {'train': 1.0}, 1)"
    assert scripts.run(body, hub, runs / "a", repo_id).returncode == 0
    for command in (["sync"], ["status", "--exit-code"], ["sync", "--dry-run", "--exit-code"]):
        assert commands.invoke(hub, *command, runs, home=tmp_path).returncode == 0, command
    for name in ("b", "c"):
        with SummaryWriter(str(runs / name)) as writer:
            writer.add_scalar("loss", 2.0, 2)
    (runs / "b" / STATE_FOLDER).mkdir(parents=True)  # as of a run that was uploaded from a folder above and then moved
    (runs / "b" / STATE_FOLDER / "run.json").touch()
    for command in (["sync"], ["status", "--exit-code"], ["sync", "--dry-run", "--exit-code"]):
        said = commands.invoke(hub, *command, runs, home=tmp_path)
        assert said.returncode == 1, command
        assert f"the event files in {runs}/b and in 1 other folder were never pushed from here" in said.stderr


def test_an_offline_run_is_uploaded_later_to_the_destination_of_its_command(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_SUMMARY_WRITER_MODE", "offline")
    logdir = tmp_path / "run"
    logged = scripts.run(
        """
        writer = HFSummaryWriter(repo_id, logdir=logdir, repo_revision="dev", path_in_repo="x")
        writer.add_scalar("loss", 1, 1)
        """,
        commands.Nowhere(), logdir, repo_id,
    )  # fmt: skip
    assert logged.returncode == 0, logged.stderr
    assert logged.stderr.count("hf-summary-writer sync") == 2  # at the start, and at the end with the pending files
    sent = commands.run(hub, "sync", logdir, home=tmp_path, HF_ENDPOINT=hub.endpoint)
    assert sent.returncode == 1, "the endpoint is part of the destination"
    sent = commands.invoke(hub, "sync", logdir, repo_id, "--into", "x/run", "--revision", "dev", home=tmp_path)
    assert sent.returncode == 0, sent.stderr
    assert remote.files(api, repo_id, revision="dev") == remote.under(logdir, "x/run")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_watch_uploads_new_files_until_a_signal_and_then_the_rest(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path, number: signal.Signals
) -> None:
    options = ["--watch", "--every", 0.005, "--json"]
    with commands.start(hub, "sync", logdir, repo_id, *options, home=logdir.parent) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        with SummaryWriter(str(logdir)) as writer:
            writer.add_scalar("loss", 2.0, 1)
        second = process.stdout.readline()
        with SummaryWriter(str(logdir)) as writer:
            writer.add_scalar("loss", 3.0, 2)
        process.send_signal(number)
        rest, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    assert [commands.objects(line)[0]["commit"]["files"] for line in (first, second)] == [1, 1]
    last = commands.objects(rest)[-1]["status"]
    assert last["pending"]["files"] == 0
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run 1")


def test_an_endpoint_without_a_scheme_is_refused_before_it_is_written_to_the_folder(
    hub: HubProcess, logdir: Path, repo_id: str
) -> None:
    sent = commands.run(hub, "sync", logdir, repo_id, home=logdir.parent, HF_ENDPOINT="hub.example.com")
    assert sent.returncode == 2
    assert "HF_ENDPOINT) 'hub.example.com' is no address" in sent.stderr
    assert not list(logdir.rglob("*.jsonl"))


def test_folders_for_another_hub_share_their_commits(tmp_path: Path) -> None:
    config = PushConfig(repo_id="user/logs", endpoint="http://127.0.0.1:9", token="hf_test")
    first, second = (FolderScheduler(tmp_path / name, config) for name in "ab")
    assert first._loop is second._loop
    assert first.api.endpoint == config.endpoint


def test_folders_watched_together_share_their_first_commit(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    api.create_repo(repo_id)
    schedulers = []
    for number in range(20):
        folder = tmp_path / f"run-{number}"
        with SummaryWriter(str(folder)) as writer:
            writer.add_scalar("loss", number, 0)
        arguments = {"repo_id": repo_id, "token": hub.token, "path_in_repo": folder.name}
        config = PushConfig.from_arguments(arguments, hub.endpoint)
        schedulers.append(FolderScheduler(folder, config))
    start_together(schedulers)
    for scheduler in schedulers:
        scheduler.trigger().result(SECONDS)
        scheduler.close()
    assert len(api.list_repo_commits(repo_id)) == 2, "the repo's initial commit and one for all folders"


def test_watch_uploads_to_the_endpoint_of_the_command_not_of_the_shell(
    tmp_path: Path, repo_id: str, client: Callable[..., HfApi]
) -> None:
    runs = tmp_path / "runs"
    with (
        HubProcess(tmp_path / "a", "--token", "hf_test") as theirs,
        HubProcess(tmp_path / "b", "--token", "hf_test") as another,
    ):
        for name in ("1", "2"):
            with SummaryWriter(str(runs / name)) as writer:
                writer.add_scalar("loss", 1.0, 0)
            assert commands.invoke(theirs, "sync", runs / name, repo_id, home=tmp_path).returncode == 0
            with SummaryWriter(str(runs / name)) as writer:
                writer.add_scalar("loss", 2.0, 1)
        options = ["--watch", "--every", 5, "--json", "--endpoint", theirs.endpoint]
        with commands.start(another, "sync", runs, *options, home=tmp_path) as process:
            assert process.stdout is not None
            told = [commands.objects(process.stdout.readline())[0]["commit"] for _ in ("1", "2")]
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, errors
        assert all(commit["url"].startswith(theirs.endpoint) for commit in told)
        assert remote.files(client(theirs), repo_id) == remote.under(runs, "tensorboard")
        assert not client(another).repo_exists(repo_id)


@pytest.mark.timeout(300)
def test_watch_uploads_everything_after_an_outage_of_the_hub(
    tmp_path: Path, logdir: Path, repo_id: str, client: Callable[..., HfApi]
) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with HubProcess(tmp_path / "hub", "--port", str(port), "--token", "hf_test") as hub:
        where = type("Where", (), {"endpoint": hub.endpoint, "token": hub.token})()
        options = ["--watch", "--every", 0.01, "--json"]
        with commands.start(where, "sync", logdir, repo_id, *options, home=tmp_path) as process:
            assert process.stdout is not None
            assert "commit" in process.stdout.readline()
            hub.stop()
            with SummaryWriter(str(logdir)) as writer:
                writer.add_scalar("loss", 2.0, 1)
            # The client retries a connection for half a minute.
            wait_until(lambda: any(logdir.rglob("*.status.json")), 200)
            with HubProcess(tmp_path / "hub", "--port", str(port), "--token", "hf_test") as again:
                assert "commit" in process.stdout.readline()
                process.send_signal(signal.SIGTERM)
                _, errors = process.communicate(timeout=SECONDS)
                assert process.returncode == 0, errors
                assert remote.files(client(again), repo_id) == remote.under(logdir, "tensorboard/run 1")
    assert "hf_test" not in errors


@pytest.mark.parametrize("options", [[], ["--watch"]])
def test_sync_fails_if_the_hub_ignored_a_file(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path, options: list[str]
) -> None:
    api.create_repo(repo_id)
    api.upload_file(path_or_fileobj=b"*.log\n", path_in_repo=".gitignore", repo_id=repo_id)
    (logdir / "a.log").write_bytes(b"1")
    arguments = [logdir, repo_id, "--allow", "*", *options]
    with commands.start(hub, "sync", *arguments, home=logdir.parent) as process:
        assert process.stdout is not None
        told = next(line for line in process.stdout if "/commit/" in line)
        if options:
            process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=SECONDS)
    assert told.startswith("1 file,")
    assert process.returncode == 1, errors
    assert " is in " not in rest
    assert ("1 of which it did not take" if options else "1 file of") in errors


def test_watch_fails_if_files_are_left_to_upload(logdir: Path, repo_id: str) -> None:
    options = ["--watch", "--close-timeout", 0.5, "--json"]
    with commands.start(commands.Nowhere(), "sync", logdir, repo_id, *options, home=logdir.parent) as process:
        wait_until(lambda: any(logdir.rglob("*.status.json")), SECONDS)
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert commands.objects(out)[-1]["status"]["pending"]["files"] == 1
    assert "hf-summary-writer sync" in errors


@pytest.fixture
def chosen(tmp_path: Path) -> Path:
    """Return a folder with a run, a link to that run and links to runs elsewhere."""
    for name in ("chosen/own", "elsewhere/run 0", "elsewhere/run 1"):
        with SummaryWriter(str(tmp_path / name)) as writer:
            writer.add_scalar("loss", 1.0, 0)
    folder = tmp_path / "chosen"
    links = {"best": "own", "baseline": "../elsewhere/run 0", "group": "../elsewhere"}
    for link, target in links.items():
        (folder / link).symlink_to(target)
    return folder


def runs(api: HfApi, repo_id: str) -> set[str]:
    return {path.rpartition("/")[0] for path in remote.files(api, repo_id) if "tfevents" in path}


def test_outgoing_links_are_named_by_each_command(hub: HubProcess, api: HfApi, repo_id: str, chosen: Path) -> None:
    home = chosen.parent
    for arguments, code in {("--dry-run",): 0, ("--dry-run", "--exit-code"): 1, (): 1}.items():
        done = commands.run(hub, "sync", chosen, repo_id, *arguments, home=home)
        assert (done.returncode, "not followed: 'baseline', 'group'" in done.stderr) == (code, True)
    assert runs(api, repo_id) == {"tensorboard/chosen/own", "tensorboard/chosen/best"}
    done = commands.run(hub, "status", chosen, "--exit-code", home=home)
    assert (done.returncode, "not followed: 'baseline', 'group'" in done.stdout) == (1, True)
    (found,) = commands.objects(commands.run(hub, "status", chosen, "--json", home=home).stdout)
    assert found["unfollowed_links"] == ["baseline", "group"]
    done = commands.run(hub, "sync", chosen, "--ignore", "baseline/", "--ignore", "group/", home=home)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("watch", [False, True], ids=["once", "watch"])
def test_runs_behind_outgoing_links_are_uploaded_with_follow_links(
    hub: HubProcess, api: HfApi, repo_id: str, chosen: Path, watch: bool
) -> None:
    home = chosen.parent
    if watch:
        command = ("sync", chosen, repo_id, "--follow-links", "--watch", "--every", "0.01")
        with commands.start(hub, *command, home=home) as process:
            wait_until(lambda: api.repo_exists(repo_id) and len(runs(api, repo_id)) == 5, SECONDS)
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=SECONDS)
        code = process.returncode
    else:
        done = commands.run(hub, "sync", chosen, repo_id, "--follow-links", home=home)
        stderr, code = done.stderr, done.returncode
    assert code == 0, stderr
    assert "link out of the folder" not in stderr
    names = {"own", "best", "baseline", "group/run 0", "group/run 1"}
    assert runs(api, repo_id) == {f"tensorboard/chosen/{name}" for name in names}
    done = commands.run(hub, "status", chosen, "--exit-code", home=home)
    assert done.returncode == 0, done.stdout
    assert "left out" not in done.stdout
    assert "link" not in done.stderr


def test_watch_stops_uploading_the_target_of_a_deleted_link(
    hub: HubProcess, api: HfApi, repo_id: str, chosen: Path
) -> None:
    command = ("sync", chosen, repo_id, "--follow-links", "--watch", "--every", "0.01")
    linked = "tensorboard/chosen/baseline/"
    with commands.start(hub, *command, home=chosen.parent) as process:
        assert process.stdout is not None
        wait_until(lambda: api.repo_exists(repo_id) and len(runs(api, repo_id)) == 5, SECONDS)
        (chosen / "baseline").unlink()
        assert any("the link is gone" in line for line in process.stdout)
        with SummaryWriter(str(chosen.parent / "elsewhere" / "run 0"), filename_suffix=".later") as writer:
            writer.add_scalar("loss", 2.0, 1)
        wait_until(lambda: any(path.endswith(".later") for path in remote.files(api, repo_id)), SECONDS)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    assert [path for path in remote.files(api, repo_id) if path.startswith(linked) and path.endswith(".later")] == []


def test_signals_that_come_together_end_a_watch_as_one_does(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path
) -> None:
    with commands.start(hub, "sync", logdir, repo_id, "--watch", "--every", "60", home=logdir.parent) as process:
        wait_until(lambda: api.repo_exists(repo_id) and runs(api, repo_id), SECONDS)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            process.send_signal(number)
        _, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, errors) == (0, "")


def test_a_signal_during_the_last_push_of_a_watch_ends_the_wait(repo_id: str, hub: HubProcess, logdir: Path) -> None:
    with FaultProxy(hub) as proxy:
        proxy.add("*", ".", Hang(), times=99)
        options = ["--watch", "--every", "60", "--close-timeout", "600"]
        with commands.start(proxy, "sync", logdir, repo_id, *options, home=logdir.parent) as process:
            wait_until(lambda: bool(proxy.requests), SECONDS)
            process.send_signal(signal.SIGINT)
            time.sleep(1.5)  # two signals within a second are one
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 1, errors
    assert "hf-summary-writer sync" in errors


def test_a_link_added_after_the_last_scan_of_a_watch_is_named(
    hub: HubProcess, api: HfApi, repo_id: str, chosen: Path
) -> None:
    late = chosen.parent / "late"
    with SummaryWriter(str(late)) as writer:
        writer.add_scalar("loss", 1.0, 0)
    command = ("sync", chosen, repo_id, "--follow-links", "--watch", "--every", "60")
    with commands.start(hub, *command, home=chosen.parent) as process:
        wait_until(lambda: api.repo_exists(repo_id) and len(runs(api, repo_id)) == 5, SECONDS)
        (chosen / "late").symlink_to(late)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, "not followed: 'late'" in errors) == (1, True)


def test_a_link_to_a_parent_folder_is_never_followed(hub: HubProcess, api: HfApi, repo_id: str, logdir: Path) -> None:
    (logdir / "up").symlink_to("..")
    done = commands.run(hub, "sync", logdir, repo_id, "--follow-links", home=logdir.parent)
    assert (done.returncode, "not followed: 'up'" in done.stderr) == (1, True)
    assert runs(api, repo_id) == {"tensorboard/run 1"}
