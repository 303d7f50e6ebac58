"""Malicious folders and Hubs."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import json
import threading
import urllib.parse
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

import commands
import remote
import scripts
from hf_summary_writer.cli.view import fetch
from hf_summary_writer.config import RUN_FILES, PushConfig
from hf_summary_writer.events.encoding import file_version
from hf_summary_writer.events.tfrecord import frame
from hf_summary_writer.folder.patterns import PathFilter
from hf_summary_writer.hub.client import client_of
from hf_summary_writer.hub.mirror import Mirror

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

ESCAPES = "\x1b]0;owned\x07\x1b[2J"


def look(stranger: Stranger, folder: Path) -> None:
    """Update a folder from a foreign Hub's repo, as `view` does."""
    config = PushConfig.from_arguments({"repo_id": "evil/repo"}, stranger.endpoint)
    api = client_of(stranger.endpoint, "hf_x")
    fetch(Mirror(api, config, folder, PathFilter(RUN_FILES), print), config)


class Stranger:
    """A foreign Hub, which records its requests and lists one file.

    Attributes:
        requests: Path and `Authorization` of every request.
        path: The file that its repo lists.
        refuses: Whether it answers 403 with a message that contains escape codes.
        echoes: Whether it answers 400 with the token of the request in a header.
        bomb: A gzip-compressed answer to all requests, if set.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.path = ""
        self.refuses = False
        self.echoes = False
        self.bomb = b""
        stranger = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                stranger.requests.append((self.path, self.headers.get("authorization") or ""))
                status, body, headers = stranger.answer(urllib.parse.unquote(self.path))
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_POST = do_GET  # noqa: N815

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        self.token = "hf_the_token_of_the_user"

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        if self.bomb:
            return 200, self.bomb, {"content-encoding": "gzip", "content-type": "application/json"}
        if self.echoes:
            return 400, b"{}", {"x-error-message": f"you sent {self.requests[-1][1]}"}
        return self.answer_to(path)

    def answer_to(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        if self.refuses:
            return 403, json.dumps({"error": f"{ESCAPES}\nAll is well"}).encode(), {"x-error-message": "no \x1b[31mred"}
        if "/resolve/" in path:
            return 200, b"EVIL", {"x-repo-commit": "a" * 40, "etag": hashlib.sha256(path.encode()).hexdigest()}
        if "/tree/" in path:
            files = [{"type": "file", "path": self.path, "size": 4, "oid": "b" * 40}]
            return 200, json.dumps(files).encode(), {"content-type": "application/json"}
        return 200, json.dumps({"id": "evil/repo", "sha": "a" * 40}).encode(), {"content-type": "application/json"}


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    found = Stranger()
    thread = threading.Thread(target=found.server.serve_forever)
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


def write_events(folder: Path, name: str = "events.out.tfevents.1") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(frame(file_version(1.0)) + frame(b"an event"))


def state_file(folder: Path, endpoint: str) -> None:
    """Put a ledger into a folder, as a malicious sender could."""
    state = folder / ".cache" / "huggingface" / "hf-summary-writer"
    state.mkdir(parents=True, exist_ok=True)
    where = {"endpoint": endpoint, "repo_type": "model", "repo_id": "evil/sink", "revision": "main", "path": "x"}
    settings = {"allow": None, "ignore": None, "private": None, "squash": False}
    home = {"path": str(folder), "inode": folder.stat().st_ino}
    lines = [{"version": 1, "destination": where, "folder": home}, {"settings": settings}]
    (state / "0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.faults("S6")
@pytest.mark.parametrize("parent", [False, True])
def test_a_ledger_cannot_send_the_token_to_another_hub(
    stranger: Stranger, hub: HubProcess, tmp_path: Path, parent: bool
) -> None:
    folder = tmp_path / "runs" / "first"
    write_events(folder)
    state_file(folder, stranger.endpoint)
    done = commands.invoke(hub, "sync", folder.parent if parent else folder, home=tmp_path)
    assert done.returncode != 0
    assert stranger.requests == []
    assert f"--endpoint {stranger.endpoint}" in done.stderr
    # The option `--endpoint` allows it.
    commands.invoke(stranger, "sync", folder, "--endpoint", stranger.endpoint, home=tmp_path)
    assert stranger.requests


@pytest.mark.faults("S6")
def test_a_ledger_for_another_hub_holds_back_no_other_folder(
    stranger: Stranger, hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    for name in ("mine", "theirs"):
        write_events(tmp_path / "runs" / name)
    state_file(tmp_path / "runs" / "theirs", stranger.endpoint)
    assert commands.invoke(hub, "sync", tmp_path / "runs" / "mine", repo_id, home=tmp_path).returncode == 0
    write_events(tmp_path / "runs" / "mine", "more.tfevents.2")
    done = commands.invoke(hub, "sync", tmp_path / "runs", home=tmp_path)
    assert (done.returncode, stranger.requests) == (1, [])
    assert len(remote.files(api, repo_id)) == 2


@pytest.mark.faults("S7")
def test_a_password_in_the_endpoint_is_not_shown_or_stored(hub: HubProcess, tmp_path: Path) -> None:
    script = """
        logging.getLogger().setLevel(logging.DEBUG)
        with HFSummaryWriter("run", logdir=logdir, close_timeout=5) as writer:
            writer.add_scalar("a", 1.0, 1)
            print(repr(writer.scheduler), writer.scheduler.status().as_dict())
    """
    secret = "pass-word-of-the-proxy"
    proxied = SimpleNamespace(endpoint=hub.endpoint.replace("://", f"://user:{secret}@"), token=hub.token)
    done = scripts.run(script, proxied, tmp_path / "run", "run")
    assert done.returncode == 0, done.stderr
    assert secret not in done.stdout + done.stderr
    stored = [path for path in tmp_path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert stored == []


@pytest.mark.faults("S7")
def test_a_token_that_the_hub_echoes_is_masked_in_the_log(stranger: Stranger, tmp_path: Path) -> None:
    stranger.echoes = True
    script = """
        logging.getLogger().setLevel(logging.DEBUG)
        with HFSummaryWriter("user/run", logdir=logdir, close_timeout=5) as writer:
            writer.add_scalar("a", 1.0, 1)
    """
    done = scripts.run(script, stranger, tmp_path / "run", "run")
    assert "you sent <token>" in done.stderr
    assert stranger.token not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "path",
    [
        "../../evil.tfevents.1",
        "/evil.tfevents.2",
        "x/../../evil.tfevents.3",
        "..\\evil.tfevents.4",
        "C:\\evil.tfevents.5",
        "C:evil.tfevents.6",
        "./evil.tfevents.7",
        "//evil.tfevents.8",
        "a\x1b[2Jb.tfevents.9",
        "a\nb.tfevents.10",
        ".git/hooks/x.tfevents.11",
        ".cache/huggingface/hf-summary-writer/a.tfevents.x.jsonl",
        "runs/.cache/huggingface/hf-summary-writer/a.tfevents.x.jsonl",
    ],
)
@pytest.mark.faults("S8")
def test_view_requests_no_file_with_a_path_outside_the_folder(stranger: Stranger, tmp_path: Path, path: str) -> None:
    stranger.path = path
    look(stranger, tmp_path / "shown")
    assert not [asked for asked, _ in stranger.requests if "/resolve/" in asked]


@pytest.mark.faults("S8")
def test_view_downloads_other_files_after_one_failed(stranger: Stranger, tmp_path: Path) -> None:
    stranger.path = "x" * 300 + ".tfevents.1"  # longer than a file system allows
    look(stranger, tmp_path / "shown")
    stranger.path = "run/events.out.tfevents.1"
    look(stranger, tmp_path / "shown")
    assert (tmp_path / "shown" / stranger.path).read_bytes() == b"EVIL"


@pytest.mark.faults("S4")
def test_escape_codes_in_a_response_are_not_printed(stranger: Stranger, tmp_path: Path) -> None:
    stranger.refuses = True
    shown = commands.on_terminal(stranger, "view", "evil/repo", home=tmp_path)
    assert "403" in shown.text
    assert "\x1b]0;" not in shown.text
    assert "\x1b[2J" not in shown.text
    assert "\x1b[31m" not in shown.text


@pytest.mark.faults("S4")
@pytest.mark.parametrize("words", [("view", "evil/repo"), ("check",)], ids=["view", "check"])
def test_commands_refuse_a_response_that_is_huge_when_decompressed(
    stranger: Stranger, tmp_path: Path, words: tuple[str, ...]
) -> None:
    stranger.bomb = gzip.compress(b" " * 100_000_000, compresslevel=1)
    ended = commands.invoke(stranger, *words, home=tmp_path)
    assert ended.returncode != 0
    assert "is compressed" in ended.stdout + ended.stderr


@pytest.mark.faults("S4")
def test_escape_codes_in_file_names_are_not_printed(stranger: Stranger, tmp_path: Path) -> None:
    folder = tmp_path / f"run{ESCAPES}"
    write_events(folder)
    state_file(folder, stranger.endpoint)
    shown = commands.on_terminal(stranger, "status", tmp_path, home=tmp_path)
    assert "goes to" in shown.text
    assert "\x1b]0;" not in shown.text
    assert "\x1b[2J" not in shown.text
