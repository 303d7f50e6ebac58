"""Many concurrent clients, large files and repeated kills of the Hub lose nothing that was acknowledged."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from huggingface_hub import CommitOperationAdd

from hub.gitcheck import assert_sound, git
from hub.wire import file_line, line, send, send_commit
from hub_process import HubProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from huggingface_hub import HfApi

KILLS = 50
MEGABYTE = 1024 * 1024


def put_lfs(hub: HubProcess, repo_id: str, content: bytes) -> str:
    """Upload a large file over plain LFS and return its sha256."""
    oid = hashlib.sha256(content).hexdigest()
    asked = {"operation": "upload", "objects": [{"oid": oid, "size": len(content)}]}
    (item,) = send(hub, "POST", f"/{repo_id}.git/info/lfs/objects/batch", asked).json()["objects"]
    if "actions" in item:
        assert send(hub, "PUT", item["actions"]["upload"]["href"], content, token=None).status == 200
    return oid


def test_fifty_concurrent_clients_are_served(hub: HubProcess, api: HfApi, repo_id: str) -> None:
    repos = [api.create_repo(f"{repo_id}-{n}").repo_id for n in range(5)]

    def work(client: int) -> None:
        repo = repos[client % len(repos)]
        for n in range(4):
            content = random.Random(f"{client}-{n}").randbytes(20_000)
            oid = put_lfs(hub, repo, content)
            large = line("lfsFile", path=f"{client}/{n}.bin", algo="sha256", oid=oid, size=len(content))
            assert send_commit(hub, repo, large, file_line(f"{client}/{n}.txt", b"%d" % n)).status == 200
            assert send(hub, "GET", f"/{repo}/resolve/main/{client}/{n}.bin").body == content
            assert send(hub, "GET", f"/api/models/{repo}/tree/main/{client}").status == 200

    with ThreadPoolExecutor(50) as clients:
        list(clients.map(work, range(50)))
    for repo in repos:
        assert len(api.list_repo_commits(repo)) == 1 + 10 * 4
        assert_sound(hub.root / "repos" / "models" / f"{repo}.git")


def test_commits_from_many_processes_are_all_in_the_history(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    api.create_repo(repo_id)
    script = (
        "import os, sys; from huggingface_hub import HfApi, constants; constants.ENDPOINT = sys.argv[1];"
        "api = HfApi(endpoint=sys.argv[1], token=sys.argv[2]);"
        "[api.upload_file(path_or_fileobj=os.urandom(50_000), path_in_repo=f'{sys.argv[4]}/events.tfevents.{n}',"
        " repo_id=sys.argv[3]) for n in range(5)]"
    )
    processes = []
    for name in "abcdef":
        environment = {**os.environ, "HF_HOME": str(tmp_path / name), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        command = [sys.executable, "-W", "ignore", "-c", script, hub.endpoint, hub.token, repo_id, name]
        processes.append(subprocess.Popen(command, env=environment))
    assert [process.wait(timeout=90) for process in processes] == [0] * len(processes)
    expected = {f"{name}/events.tfevents.{n}" for name in "abcdef" for n in range(5)}
    assert expected < set(api.list_repo_files(repo_id))
    assert len(api.list_repo_commits(repo_id)) == 1 + len(expected)
    assert_sound(hub.root / "repos" / "models" / f"{repo_id}.git")


def test_an_aborted_download_leaves_no_file_open(hub: HubProcess, api: HfApi, repo_id: str) -> None:
    assert hub.process
    api.create_repo(repo_id)
    content = bytes(20 * MEGABYTE)
    oid = put_lfs(hub, repo_id, content)
    large = line("lfsFile", path="large.bin", algo="sha256", oid=oid, size=len(content))
    assert send_commit(hub, repo_id, large).status == 200
    address = hub.endpoint.removeprefix("http://").split(":")
    for _ in range(5):
        with socket.create_connection((address[0], int(address[1]))) as connection:
            connection.sendall(f"GET /{repo_id}/resolve/main/large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    server, deadline = psutil.Process(hub.process.pid), time.monotonic() + 20
    while any(oid in file.path for file in server.open_files()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(MEGABYTE):
            digest.update(piece)
    return digest.hexdigest()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_two_gigabyte_file_uses_bounded_memory(tmp_path: Path, client: Callable[..., HfApi]) -> None:
    source, digest = tmp_path / "source.tfevents.1", hashlib.sha256()
    piece = random.Random(1).randbytes(MEGABYTE)
    with source.open("wb") as file:
        for n in range(2048):
            part = n.to_bytes(8, "little") + piece[8:]
            digest.update(part)
            file.write(part)
    with HubProcess(tmp_path / "hub") as hub:
        assert hub.process
        server = psutil.Process(hub.process.pid)
        peak, done = [server.memory_info().rss], threading.Event()

        def watch() -> None:
            while not done.wait(0.05):
                peak.append(server.memory_info().rss)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            api = client(hub)
            api.create_repo("tester/large")
            operations = [CommitOperationAdd("large.tfevents.1", source)]
            api.create_commit("tester/large", operations, commit_message="Add")
            got = Path(api.hf_hub_download("tester/large", "large.tfevents.1", local_dir=tmp_path / "download"))
        finally:
            done.set()
            watcher.join()
        assert _sha256(got) == digest.hexdigest()
        got.unlink()
        assert max(peak) - peak[0] < 150 * MEGABYTE


class _Writers:
    """Clients that commit until they are stopped, and record the acknowledged commits."""

    def __init__(self, endpoint: str, token: str) -> None:
        self.endpoint = endpoint
        self.token = token
        self.stop = threading.Event()
        # The repo, oid, path and content of each acknowledged commit.
        self.acknowledged: list[tuple[str, str, str, bytes]] = []

    def small(self, repo_id: str) -> None:
        for n in itertools.takewhile(lambda _: not self.stop.is_set(), itertools.count()):
            content = f"{repo_id} {n}".encode()
            with self._expecting_crashes():
                reply = send_commit(self, repo_id, file_line(f"small/{n}.txt", content), summary=f"Commit {n}")
                if reply.status == 200:
                    self.acknowledged.append((repo_id, reply.json()["commitOid"], f"small/{n}.txt", content))

    def large(self, api: HfApi, repo_id: str) -> None:
        content = b""
        for n in itertools.takewhile(lambda _: not self.stop.is_set(), itertools.count()):
            content += random.Random(n).randbytes(30_000)
            with self._expecting_crashes():
                operations = [CommitOperationAdd("events.tfevents.1", content)]
                info = api.create_commit(repo_id, operations, commit_message=f"Commit {n}")
                self.acknowledged.append((repo_id, info.oid, "events.tfevents.1", content))

    def _expecting_crashes(self) -> _ExpectingCrashes:
        return _ExpectingCrashes(self.stop)


class _ExpectingCrashes:
    """Suppress client errors while the Hub is killed, and wait a moment for its restart."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        if kind is not None:
            self._stop.wait(0.02)
        return kind is not None and issubclass(kind, Exception)


def _free_port() -> int:
    # Below Linux's ephemeral ports: a client could take one of those while the Hub is down.
    for port in random.sample(range(20_000, 32_000), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise RuntimeError("no port is free")


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_fifty_kills_of_the_hub_lose_no_acknowledged_commit(tmp_path: Path, client: Callable[..., HfApi]) -> None:
    arguments = ["--port", str(_free_port()), "--token", "hf_crash"]
    small, large = [f"tester/small-{n}" for n in range(3)], "tester/large"
    moments = random.Random(7)
    with HubProcess(tmp_path / "hub", *arguments) as hub:
        api = client(hub)
        for repo_id in (*small, large):
            api.create_repo(repo_id)
        writers = _Writers(hub.endpoint, hub.token)
        with ThreadPoolExecutor(4) as pool:
            try:
                for repo_id in small:
                    pool.submit(writers.small, repo_id)
                pool.submit(writers.large, api, large)
                for _ in range(KILLS):
                    time.sleep(moments.uniform(0.02, 0.5))
                    hub.kill()
                    hub.__enter__()
                time.sleep(0.5)
            finally:
                writers.stop.set()
        assert len({repo_id for repo_id, *_ in writers.acknowledged}) == 4, "each writer has acknowledged commits"
        assert len(writers.acknowledged) > KILLS, "the Hub was killed between commits"
        for repo_id in (*small, large):
            repository = tmp_path / "hub" / "repos" / "models" / f"{repo_id}.git"
            assert_sound(repository)
            history = set(git(repository, "log", "--format=%H", "main").split())
            assert {oid for repo, oid, *_ in writers.acknowledged if repo == repo_id} <= history
        for repo_id, oid, path, content in writers.acknowledged:
            assert send(hub, "GET", f"/{repo_id}/resolve/{oid}/{path}").body == content
        assert api.repo_info(small[0]).sha in {commit.commit_id for commit in api.list_repo_commits(small[0])}
