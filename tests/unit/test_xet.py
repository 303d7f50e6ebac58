"""Xet is switched off for one upload, or for good, whichever other uploads are under way and on every system."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import constants

from hf_summary_writer.hub import xet

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)


@pytest.fixture
def two() -> tuple[contextlib.ExitStack, contextlib.ExitStack]:
    """Return two uploads over plain LFS at the same time."""
    both = contextlib.ExitStack(), contextlib.ExitStack()
    for each in both:
        each.enter_context(xet.switched_off())
    return both


def test_xet_is_back_after_the_last_of_several_uploads(
    two: tuple[contextlib.ExitStack, contextlib.ExitStack],
) -> None:
    for each in two:
        assert constants.HF_HUB_DISABLE_XET
        each.close()
    assert not constants.HF_HUB_DISABLE_XET


def test_xet_stays_off_for_good_after_them(
    two: tuple[contextlib.ExitStack, contextlib.ExitStack], caplog: pytest.LogCaptureFixture
) -> None:
    first, second = two
    first.close()
    xet.switch_off("it hangs")
    xet.switch_off("it hangs")
    second.close()
    assert constants.HF_HUB_DISABLE_XET
    assert len(caplog.records) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_xet_is_on_in_a_child_that_is_forked_during_an_upload_without_it() -> None:
    with xet.switched_off():
        child = os.fork()
        if not child:
            os._exit(constants.HF_HUB_DISABLE_XET)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_one_failure_after_an_upload_that_worked_is_forgiven(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(xet, "has_worked", threading.Event())
    xet.has_worked.set()
    xet.note_failure("no route")
    assert not constants.HF_HUB_DISABLE_XET
    assert caplog.records == []
    xet.note_failure("no route")
    assert constants.HF_HUB_DISABLE_XET
    assert "no route" in caplog.text


def test_a_user_who_switched_it_off_is_told_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with xet.switched_off():
        xet.switch_off("it hangs")
    assert constants.HF_HUB_DISABLE_XET
    assert caplog.records == []


def test_without_a_cache_it_is_off_on_a_system_without_user_ids(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_XET_CACHE", str(tmp_path / "file"))
    monkeypatch.delattr(os, "geteuid")
    xet._has_cache.cache_clear()
    assert not xet.over_xet()
    assert "HF_HOME" in caplog.text
    xet._has_cache.cache_clear()
