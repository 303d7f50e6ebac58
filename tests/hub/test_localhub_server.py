"""Starting and stopping a local Hub, as a context manager and as a process, and the state that it keeps."""

from __future__ import annotations

import contextlib
import gc
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

import commands
from hf_summary_writer.localhub import LocalHub, server
from hf_summary_writer.localhub.command import localhub
from hf_summary_writer.localhub.stats import kind_of
from hub.content import LOG, files_of_at_most, noise, push
from hub.gitcheck import assert_sound
from hub.wire import file_line, send, send_commit
from hub_process import HubProcess

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_hub_serves_inside_its_block_and_leaves_nothing_behind(tmp_path: Path, client: Callable[..., HfApi]) -> None:
    before = set(threading.enumerate())
    with LocalHub(tmp_path, any_namespace=True) as hub:
        assert client(hub).whoami()["name"] == "local"
        address = hub.endpoint.removeprefix("http://").split(":")
    assert set(threading.enumerate()) - before == set()
    with pytest.raises(ConnectionRefusedError), socket.create_connection((address[0], int(address[1]))):
        pass
    gc.collect()  # an unclosed socket or file would fail this test here


def test_a_hub_that_stops_aborts_open_requests_without_a_traceback(
    tmp_path: Path, client: Callable[..., HfApi], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "_GRACE_SECONDS", 0.1)
    with contextlib.ExitStack() as open_ones, LocalHub(tmp_path) as hub:
        repo_id = client(hub).create_repo("a").repo_id
        push(client(hub), repo_id, {LOG: noise(1, 20_000_000)})
        for line, more in {
            f"GET /{repo_id}/resolve/main/{LOG}": "",
            f"POST /api/models/{repo_id}/commit/main": "Content-Length: 9\r\nExpect: 100-continue\r\n",
        }.items():
            host, port = urlsplit(hub.endpoint).netloc.split(":")
            connection = open_ones.enter_context(socket.create_connection((host, int(port)), timeout=60))
            head = f"{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {hub.token}\r\n{more}\r\n"
            connection.sendall(head.encode())
            assert connection.recv(9) == b"HTTP/1.1 "
    assert [record.getMessage() for record in caplog.records] == []


# Dulwich does not close a file that it cannot write.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_commit_refused_by_a_full_disk_is_accepted_later(tmp_path: Path, client: Callable[..., HfApi]) -> None:
    with LocalHub(tmp_path) as hub:
        repo_id = client(hub).create_repo("a").repo_id
        wide = [file_line(f"wide/{n}", b"%d" % n) for n in range(100)]
        assert send_commit(hub, repo_id, *wide).status == 200

        def attempts() -> list[int]:
            # The commit's tree needs more space than its body, and the branch the least.
            branch = send(hub, "POST", f"/api/models/{repo_id}/branch/other", {})
            return [send_commit(hub, repo_id, file_line("wide/more")).status, branch.status]

        with files_of_at_most(1000):
            assert attempts() == [507, 201]
        assert send(hub, "DELETE", f"/api/models/{repo_id}/branch/other").status == 204
        with files_of_at_most(10):
            assert attempts() == [507, 507]
        assert attempts() == [200, 201]
    assert_sound(tmp_path / "repos" / "models" / f"{repo_id}.git")
    gc.collect()  # the warnings are for this test, not for a later one


def test_the_token_can_be_chosen_and_is_generated_otherwise(tmp_path: Path) -> None:
    with LocalHub(tmp_path / "a", token="hf_mine") as mine, LocalHub(tmp_path / "b") as other:
        assert mine.token == "hf_mine"
        assert other.token.startswith("hf_")
        assert other.token != mine.token


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"port": -1}, ValueError),
        ({"port": "8080"}, TypeError),
        ({"token": "two words"}, ValueError),
        ({"token": 3}, TypeError),
        ({"commits_per_hour": 0}, ValueError),
        ({"requests_per_5min": "9"}, TypeError),
        ({"multipart_bytes": 0}, ValueError),
        ({"users": ["ann:hf_ann"]}, TypeError),
        ({"organizations": ["lab:ann"]}, TypeError),
        ({"allowed_hosts": "hub.example"}, TypeError),
        ({"host": ""}, ValueError),
    ],
    ids=str,
)
def test_invalid_arguments_are_refused_before_anything_is_written(
    tmp_path: Path, wrong: dict[str, Any], kind: type[Exception]
) -> None:
    with pytest.raises(kind, match=r"must be|token|host"):
        LocalHub(tmp_path / "hub", **wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_served_by_one_hub_only(tmp_path: Path) -> None:
    with LocalHub(tmp_path), pytest.raises(RuntimeError, match="stop it, or choose another folder"):
        LocalHub(tmp_path).__enter__()


def test_a_taken_port_is_an_error_that_leaves_the_folder_free(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        LocalHub(tmp_path, port=taken.getsockname()[1]).__enter__()
    with LocalHub(tmp_path):
        pass


def test_repos_files_and_settings_survive_a_restart(tmp_path: Path, client: Callable[..., HfApi]) -> None:
    content = bytes(range(256)) * 1000
    with LocalHub(tmp_path, any_namespace=True) as hub:
        api = client(hub)
        api.create_repo("tester/kept", private=True, repo_type="dataset")
        operations = [CommitOperationAdd("events.tfevents.1", content)]
        info = api.create_commit("tester/kept", operations, commit_message="Add", repo_type="dataset")
    with LocalHub(tmp_path, any_namespace=True) as hub:
        about = client(hub).repo_info("tester/kept", repo_type="dataset")
        assert (about.sha, about.private) == (info.oid, True)
        with pytest.raises(HfHubHTTPError, match="401"):
            client(hub, token=False).repo_info("tester/kept", repo_type="dataset")
        path = client(hub).hf_hub_download(
            "tester/kept", "events.tfevents.1", repo_type="dataset", local_dir=tmp_path / "download"
        )
        assert Path(path).read_bytes() == content


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("GET", "/api/models/a/b", "api"),
        ("POST", "/datasets/a/b.git/info/lfs/objects/batch", "api"),
        ("POST", "/api/buckets/a/b/batch", "api"),
        ("GET", "/api/buckets/a/b/xet-write-token", "api"),
        ("GET", "/api/buckets/a/b/events", "api"),
        ("HEAD", "/buckets/a/b/resolve/logs%2Fa", "download"),
        ("GET", "/a/b/resolve/main/logs/a", "download"),
        ("GET", "/datasets/a/b/raw/main/a", "download"),
        ("POST", "/a/b.git/git-upload-pack", "download"),
        ("POST", "/v1/xorbs/default/0", "xorb"),
        ("POST", "/v1/shards", "shard"),
        ("GET", "/buckets/a/b", None),
        ("GET", "/a/b/tree/main/resolve", None),
        ("GET", "/", None),
    ],
)
def test_each_route_has_its_kind(method: str, path: str, kind: str | None) -> None:
    assert kind_of(method, path) == kind


def test_requests_and_bytes_are_counted_by_kind(tmp_path: Path, client: Callable[..., HfApi]) -> None:
    with LocalHub(tmp_path, any_namespace=True) as hub:
        assert hub.stats.requests == 0
        client(hub).create_repo("tester/counted")
        assert hub.stats.api.requests == 1
        assert hub.stats.api.received > 0
        assert [(each.method, each.path, each.status) for each in hub.requests] == [("POST", "/api/repos/create", 200)]
        hub.reset_stats()
        assert hub.stats.requests == len(hub.requests) == 0


@pytest.mark.parametrize("names", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGTERM]], ids=str)
def test_the_command_prints_one_line_and_stops_cleanly_on_a_signal(tmp_path: Path, names: list[signal.Signals]) -> None:
    command = [sys.executable, "-m", "hf_summary_writer.localhub", "--root", str(tmp_path), "--token", "hf_t"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = process.stdout.readline()
        assert line.startswith("HF_ENDPOINT=http://127.0.0.1:")
        assert line.endswith(" HF_TOKEN=hf_t\n")
        for name in names:
            process.send_signal(name)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "")


def test_the_command_explains_in_one_line_why_it_cannot_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with LocalHub(tmp_path / "taken") as hub:
        port = hub.endpoint.rpartition(":")[2]
        for arguments, reason in (
            (["taken"], f"Another local Hub serves {tmp_path}/taken: stop it, or choose another folder."),
            (["a", "--port", port], f"Port {port} is in use: stop the program that uses it, or choose another --port."),
            (["b", "--host", "no.invalid"], "no.invalid is not an address of this machine: choose another --host."),
            (["file/c"], f"{tmp_path}/file: File exists"),
        ):
            command = [sys.executable, "-m", "hf_summary_writer.localhub", "--root", *arguments]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
            assert (done.returncode, done.stdout, done.stderr) == (1, "", f"Error: {reason}\n")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--root", "hub", "--port", "99999"], "99999 is not in the range"),
        (["--root", ""], "the name of the folder is empty"),
        (["--root", "hub", "--host", ""], "a host name is empty"),
        (["--root", "hub", "--allow-host", ""], "a host name is empty"),
        (["--root", "hub", "--user", "ann"], "NAME:TOKEN"),
        (["--root", "hub", "--organization", "lab"], "NAME:USER"),
    ],
)
def test_an_invalid_option_is_a_usage_error(
    arguments: list[str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(localhub, arguments)
    assert (done.exit_code, reason in done.output) == (2, True)
    assert not list(tmp_path.iterdir())


def test_a_root_in_the_home_may_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").touch()
    done = CliRunner().invoke(localhub, ["--root=~/file"])
    assert f"Directory '{tmp_path}/file' is a file" in done.output


def test_a_restart_with_the_same_root_has_the_same_port_and_token(tmp_path: Path) -> None:
    with HubProcess(tmp_path) as hub:
        first = (hub.endpoint, hub.token)
    assert (tmp_path / "access.json").stat().st_mode & 0o077 == 0
    with HubProcess(tmp_path) as hub:
        assert (hub.endpoint, hub.token) == first
    with HubProcess(tmp_path, "--token", "hf_given") as hub:
        assert (hub.endpoint, hub.token) == (first[0], "hf_given")
    with HubProcess(tmp_path) as hub:
        assert hub.token == first[1], "a given token is not kept"
    (tmp_path / "access.json").write_text('{"port": 70000, "tok')
    with HubProcess(tmp_path) as hub:
        assert hub.token != first[1]


def test_the_port_of_the_last_start_is_replaced_if_it_is_in_use(tmp_path: Path) -> None:
    with HubProcess(tmp_path) as hub:
        address, token = hub.endpoint, hub.token
    port = int(address.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)), HubProcess(tmp_path) as hub:
        assert hub.token == token
        assert hub.endpoint != address


def test_a_terminal_shows_the_url_and_how_to_stop(tmp_path: Path) -> None:
    with HubProcess(tmp_path / "a") as hub:
        shown = commands.on_terminal(hub, "localhub", "--root", tmp_path / "b", home=tmp_path, until="Ctrl-C")
    assert shown.code == 0
    assert re.search(r"Open http://127\.0\.0\.1:\d+ in a browser\. Press Ctrl-C to stop\.\r\n", shown.text)


def test_a_hub_on_all_addresses_names_a_reachable_endpoint(tmp_path: Path, client: Callable[..., HfApi]) -> None:
    with LocalHub(tmp_path, host="0.0.0.0") as hub:  # noqa: S104
        assert hub.endpoint.startswith("http://127.0.0.1:")
        assert client(hub).whoami()["name"] == "local"


def test_rate_limits_from_the_command_line_are_enforced(tmp_path: Path, client: Callable[..., HfApi]) -> None:
    with HubProcess(tmp_path, "--commits-per-hour", "1", "--requests-per-5min", "1000") as hub:
        api = client(hub)
        api.create_repo("tester/limited")
        operations = [CommitOperationAdd("a.txt", b"1")]
        api.create_commit("tester/limited", operations, commit_message="Add")
        operations = [CommitOperationAdd("a.txt", b"2")]
        with pytest.raises(Exception, match=r"rate limit for repository commits \(1 per hour\)"):
            api.create_commit("tester/limited", operations, commit_message="Add")
