"""Servers: logging from an asyncio loop and from workers of gunicorn and uvicorn."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

import events
import remote
import scripts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

SECONDS = 60.0

# Makes its writer at import, so that gunicorn's workers inherit it with `--preload`.
APPLICATION = """
import asyncio
import os

from hf_summary_writer import HFSummaryWriter

writer = HFSummaryWriter(os.environ["REPO"], os.environ["LOGDIR"], commit_every=60)


def log(path):
    writer.add_scalar(f"requests/{os.getpid()}", 1.0, int(path.strip("/")))
    return str(os.getpid()).encode()


def wsgi(environ, start_response):
    body = log(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        # uvicorn re-raises SIGTERM, so no exit handler runs.
        await asyncio.to_thread(writer.close)
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = log(scope["path"])
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""

SERVERS = {
    "gunicorn": ["gunicorn", "--workers", "2", "application:wsgi"],
    "gunicorn that loads the program first": ["gunicorn", "--workers", "2", "--preload", "application:wsgi"],
    "uvicorn": ["uvicorn", "application:asgi"],
}


@contextmanager
def serving(words: list[str], hub: HubProcess, repo_id: str, folder: Path) -> Iterator[str]:
    """Run a server and yield its address; stop it with SIGTERM at the end, as service managers do."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    bound = ["--bind", f"127.0.0.1:{port}"] if words[0] == "gunicorn" else ["--port", str(port)]
    variables = {"REPO": repo_id, "LOGDIR": str(folder / "run"), "PYTHONWARNINGS": "ignore::DeprecationWarning"}
    with subprocess.Popen(
        [sys.executable, "-m", *words, *bound],
        cwd=folder,
        env={**scripts.environment(hub, folder), **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as server:
        try:
            address = f"http://127.0.0.1:{port}"
            events.wait_until(lambda: server.poll() is not None or accepts(address), SECONDS)
            yield address
        finally:
            server.send_signal(signal.SIGTERM)
            said, _ = server.communicate(timeout=SECONDS)
    assert "Traceback" not in said, said


def ask(address: str) -> str:
    with urllib.request.urlopen(address, timeout=SECONDS) as answer:  # noqa: S310 - of this machine
        return str(answer.read().decode())


def accepts(address: str) -> bool:
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.socket() as probe:
        return not probe.connect_ex((host, int(port)))


@pytest.mark.peers
@pytest.mark.timeout(180)
@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork")
@pytest.mark.parametrize("server", SERVERS)
def test_events_of_server_workers_are_uploaded(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path, server: str
) -> None:
    words = SERVERS[server]
    pytest.importorskip(words[0])
    (tmp_path / "application.py").write_text(APPLICATION)
    with serving(words, hub, repo_id, tmp_path) as address:
        workers = [ask(f"{address}/{number}") for number in range(40)]
    logged = {
        (tag, step)
        for path in events.event_files(tmp_path / "run")
        for event in events.events(path)
        for tag, step in [(value.tag, event.step) for value in event.summary.value]
    }
    assert logged == {(f"requests/{worker}", number) for number, worker in enumerate(workers)}
    assert remote.files(api, repo_id) == remote.under(tmp_path / "run", "tensorboard/run")


ASYNCIO = """
import asyncio
writer = HFSummaryWriter(repo_id, logdir=logdir, commit_every=60)

async def serve(number):
    for step in range(100):
        writer.add_scalar(f"task/{number}", step, step)
        await asyncio.sleep(0)
        if step == 50:
            await asyncio.wrap_future(writer.scheduler.trigger())

async def main():
    loop = asyncio.get_running_loop()
    loop.slow_callback_duration = 5
    await asyncio.gather(*map(serve, range(10)))
    await loop.run_in_executor(None, writer.flush)
    raise SystemExit(7)

asyncio.run(main(), debug=True)
"""


def test_asyncio_tasks_log_and_await_a_push(hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path) -> None:
    logdir = tmp_path / "run-1"
    ended = scripts.run(ASYNCIO, hub, logdir, repo_id)
    assert ended.returncode == 7, ended.stderr
    assert not re.search("Traceback|never awaited|took .* seconds", ended.stderr), ended.stderr
    for number in range(10):
        assert events.steps(logdir, f"task/{number}") == list(range(100))
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run-1")
