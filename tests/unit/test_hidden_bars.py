"""Progress bars of the client are hidden while we use it and restored afterwards."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from hf_summary_writer.hub.client import _has_bars, _show_bars
from hf_summary_writer.hub.switch import ClientSwitch

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def bars_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module in (constants, sys.modules["huggingface_hub.utils.tqdm"]):
        monkeypatch.setattr(module, "HF_HUB_DISABLE_PROGRESS_BARS", None)
    before = are_progress_bars_disabled()
    yield
    (disable_progress_bars if before else enable_progress_bars)()


@pytest.mark.parametrize("shown", [True, False])
def test_bars_are_hidden_until_the_outermost_block_ends(shown: bool) -> None:
    (enable_progress_bars if shown else disable_progress_bars)()
    bars = ClientSwitch(_has_bars, _show_bars)
    with bars.off():
        assert are_progress_bars_disabled()
        with bars.off():
            assert are_progress_bars_disabled()
        assert are_progress_bars_disabled()
    assert are_progress_bars_disabled() is not shown


def test_a_forked_child_has_the_bars_restored() -> None:
    enable_progress_bars()
    bars = ClientSwitch(_has_bars, _show_bars)
    with bars.off():
        bars.after_fork_in_child()
        assert not are_progress_bars_disabled()
