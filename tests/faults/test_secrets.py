"""The token is never shown, for any answer of a server. The fixture `watch` checks all tests in this folder for it."""

from __future__ import annotations

import logging
import os
import pickle
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import HfApi, close_session

import remote
import scripts
from faults.conftest import Watch
from faults.proxy import Answer, CutAnswer, Reset
from hf_summary_writer.errors import ActionNeededError, PushError
from hf_summary_writer.hub import failure_of
from hf_summary_writer.hub.xet import switched_off

if TYPE_CHECKING:
    from pathlib import Path

    from faults.conftest import World
    from faults.proxy import FaultProxy

# The client logs requests and quotes answers.
pytestmark = [pytest.mark.faults, pytest.mark.client, pytest.mark.transport]

TALKATIVE = """
logging.getLogger().setLevel(logging.DEBUG)
import traceback
def show(details):
    print("".join(traceback.TracebackException.from_exception(details.error, capture_locals=True).format()))
token = os.environ["HF_TOKEN"]
scheduler = CommitScheduler(repo_id=repo_id, folder_path=logdir, every=0.001, on_error=show, token=token)
print(repr(scheduler), vars(scheduler), scheduler.api, repr(scheduler._remote), repr(scheduler._job))
open(logdir + "/a.bin", "wb").write(os.urandom(10_000))
scheduler.close()
print(open("/proc/self/cmdline").read() if os.path.exists("/proc/self/cmdline") else "")
"""


def break_everything_once(proxy: FaultProxy) -> None:
    for request in ("/repos/create", "/preupload/", "/commit/"):
        for action in (Answer(401), Answer(500), Reset(), Answer(200, body=b"<html>"), CutAnswer(after=5)):
            proxy.add("POST", request, action)


@pytest.mark.faults("S2")
def test_no_error_shows_the_token_even_with_debug_logging(
    world: World, api: HfApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_everything_once(world.proxy)
    monkeypatch.setenv("HF_DEBUG", "1")
    done = scripts.run(TALKATIVE, world.proxy, world.folder, world.repo_id)
    assert done.returncode == 0
    assert "DEBUG" in done.stderr
    world.watch.see(done.stdout, done.stderr)
    assert world.watch.leaks == []
    assert remote.files(api, world.repo_id) == world.on_disk()


def test_a_signed_address_is_not_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    (world.folder / "a.bin").write_bytes(os.urandom(20_000))
    with switched_off():
        world.schedule().settle()
    [sent] = [each for each in caplog.messages if "HTTP Request: PUT" in each]
    assert "?grant=<signature>" in sent


def test_errors_of_pushes_can_be_pickled_and_shown_without_the_token(world: World) -> None:
    break_everything_once(world.proxy)
    (world.folder / "a.bin").write_bytes(os.urandom(10_000))
    run = world.schedule()
    kinds = set()
    while (error := run.scheduler.trigger().exception(30)) is not None:
        kinds.add(type(error))
        assert isinstance(error, PushError)
        world.watch.see(pickle.dumps(error).decode("latin-1"))
        world.watch.see_error(error)
    assert len(kinds) > 1


@pytest.mark.faults("S7")
def test_no_part_of_a_password_in_an_invalid_proxy_address_is_shown(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (world.folder / "a.bin").write_bytes(os.urandom(1000))
    with monkeypatch.context() as patched:
        patched.setenv("http_proxy", "http://ann:canary#rest@proxy:3128")
        close_session()
        error = world.schedule().next_error()
        with pytest.raises(Exception, match="port") as raised:
            world.api.whoami()
    close_session()
    assert isinstance(error, ActionNeededError)
    assert "HTTP_PROXY" in str(error)
    assert "canary" not in "".join([*world.said(logging.DEBUG), str(error), failure_of(raised.value)])


def test_the_watch_finds_a_token_in_files_errors_and_text(tmp_path: Path) -> None:
    watch = Watch("hf_a-token-of-this-test")
    (tmp_path / "file").write_text(f"x {watch.token}")
    watch.see_files(tmp_path)

    def fails(token: str) -> None:
        raise ValueError(len(token))

    with pytest.raises(ValueError, match="23") as caught:
        fails(watch.token)
    watch.see_error(caught.value)
    watch.see("nothing", watch.token)
    assert len(watch.leaks) == 3
    assert Watch(watch.token, ["nothing"]).leaks == []


@pytest.mark.faults("S4")
@pytest.mark.parametrize("status", [400, 401, 403, 429, 500])
def test_a_server_message_is_logged_as_one_short_clean_line(world: World, status: int) -> None:
    text = b"\x1b[31mred\x1b[0m\r\n\x07line two\tof " + world.proxy.token.encode() + b"x" * 10_000_000
    # A refused commit is repeated without the new repo's card.
    times = 2 if status == 400 else 1
    world.proxy.add("POST", "/commit/", Answer(status, {"Content-Type": "text/plain"}, text), times=times)
    (world.folder / "a.bin").write_bytes(os.urandom(100))
    run = world.schedule()
    run.settle()
    [warning] = world.said(logging.WARNING)
    assert "red line two of <token>" in warning
    assert len(warning) < 1000
    assert warning.isprintable()


def test_a_token_of_an_unusual_form_is_masked_too(world: World) -> None:
    token = "of-another-hub-0123456789"
    world.proxy.add("POST", "/repos/create", Answer(403, {}, f"{token} is unknown".encode()), times=2)
    (world.folder / "a.bin").write_bytes(os.urandom(100))
    run = world.schedule(hf_api=HfApi(endpoint=world.proxy.endpoint, token=token))
    run.settle()
    [warning] = world.said(logging.WARNING)
    assert "<token> is unknown" in warning
    assert token not in warning
