"""Failing downloads of event files keep the local copy intact and name the reason."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import pytest

import hf_summary_writer
from events import wait_until
from faults.proxy import Answer, Drip, FaultProxy, Reset
from hf_summary_writer import HFSummaryWriter
from hf_summary_writer.hub import downloads, failure_of, mirror, thread

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from huggingface_hub import HfApi

    from faults.proxy import Action

PAGE = Answer(200, {"Content-Type": "text/html"}, b"<html>Please log in to this network</html>")
ALWAYS = 1000


@pytest.fixture
def run(api: HfApi, repo_id: str, tmp_path: Path) -> str:
    with HFSummaryWriter(repo_id, tmp_path / "first", hf_api=api) as writer:
        for step in range(500):
            writer.add_scalar("loss", step, step)
    return repo_id


def test_a_reset_connection_does_not_end_a_download(proxy: FaultProxy, proxied: HfApi, run: str) -> None:
    proxy.add("GET", "/resolve/", Reset())
    assert list(hf_summary_writer.read(run, hf_api=proxied)) == ["tensorboard/first"]


def test_a_login_page_does_not_replace_a_kept_copy(proxy: FaultProxy, proxied: HfApi, run: str, tmp_path: Path) -> None:
    hf_summary_writer.read(run, hf_api=proxied, folder=tmp_path / "copy")
    (file,) = (tmp_path / "copy").rglob("*.tfevents.*")
    content = file.read_bytes()
    proxy.add("GET", "/resolve/", PAGE, times=ALWAYS)
    with pytest.raises(OSError, match="the Hub sent"):
        hf_summary_writer.read(run, hf_api=proxied, folder=tmp_path / "copy")
    assert file.read_bytes() == content


def test_the_error_of_a_download_names_the_reason_without_a_signed_url(
    proxy: FaultProxy, proxied: HfApi, run: str
) -> None:
    proxy.add(
        "GET", r"/resolve/[^?]*$", Answer(302, {"Location": f"{proxy.endpoint}/x/resolve/y?Signature=secret"}), 99
    )
    proxy.add("GET", "Signature=", Answer(403, {"X-Error-Message": "the link has expired"}), times=ALWAYS)
    with pytest.raises(OSError, match="403 the link has expired") as raised:
        hf_summary_writer.read(run, hf_api=proxied)
    assert "secret" not in str(raised.value)


def test_an_echoed_token_of_an_unusual_form_is_masked(
    proxy: FaultProxy, client: Callable[..., HfApi], run: str
) -> None:
    token = "a-token-of-a-hub-of-our-own"
    proxy.add("*", "/api/models/", Answer(403, body=f"{token} is not allowed".encode()))
    with pytest.raises(OSError, match="403") as raised:
        hf_summary_writer.read(run, hf_api=client(proxy, token))
    assert failure_of(raised.value) == "403 <token> is not allowed"


def test_a_redirect_to_another_host_is_named(proxy: FaultProxy, proxied: HfApi, run: str) -> None:
    proxy.add("*", "/api/models/", Answer(302, {"Location": "https://login.example/"}))
    with pytest.raises(OSError, match=r"redirects to https://login\.example/"):
        hf_summary_writer.read(run, hf_api=proxied)


@pytest.mark.parametrize(
    ("action", "reason"),
    [(Answer(503, body=b"busy"), "503 busy"), (Reset(), "cannot be reached"), (PAGE, "what answered is not the Hub")],
)
def test_reading_an_unavailable_repo_raises_os_error(
    proxy: FaultProxy, proxied: HfApi, run: str, action: Action, reason: str
) -> None:
    proxy.add("*", "/api/models/", action)
    with pytest.raises(OSError, match=reason):
        hf_summary_writer.read(run, hf_api=proxied)


def test_view_warns_once_about_failed_downloads(
    proxy: FaultProxy, proxied: HfApi, run: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(importlib.import_module("tensorboard.notebook"), "start", lambda _: None)
    proxy.add("GET", "/resolve/", Answer(403, body=b"not allowed"), times=ALWAYS)
    followed = hf_summary_writer.view(run, hf_api=proxied)
    followed._look()
    followed.close()
    warnings = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert [each for each in warnings if each.endswith("could not be downloaded: 403 not allowed")] == warnings
    assert len(warnings) == 1


@pytest.mark.parametrize("path", ["/api/models/", "/resolve/"])
def test_headers_that_trickle_in_end_a_read_at_its_deadline(
    proxy: FaultProxy, proxied: HfApi, run: str, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    for module, limit in ((downloads, "SECONDS"), (mirror, "SECONDS"), (mirror, "CALL_SECONDS")):
        monkeypatch.setattr(module, limit, 2.0)
    proxy.add("GET", path, Drip(0.5), times=ALWAYS)
    with pytest.raises(OSError, match="did not answer"):
        hf_summary_writer.read(run, hf_api=proxied)
    assert proxy.requests  # and no answer to them has ended: each has hundreds of bytes
    proxy.clear()
    wait_until(lambda: not any(each.is_alive() for each in thread._reads_left_behind), 30.0)
