"""Kills at random moments, and kills together with network faults for a minute."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from faults.ordeal import undergo

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

KILLS = int(os.environ.get("TEST_KILLS", "200"))
SECONDS = float(os.environ.get("TEST_CHAOS_SECONDS", "60"))
SEED = int(os.environ.get("TEST_SEED", "6"))


@pytest.mark.slow
@pytest.mark.timeout(60 + 10 * KILLS)
def test_kills_lose_no_flushed_record(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    outcome = undergo(hub, api, repo_id, tmp_path / "run", seed=SEED, goes_on=lambda kills: kills < KILLS, faults=False)
    with capfd.disabled():
        print(f"\n{outcome}")  # noqa: T201 - the lane's result
    assert outcome.kills == KILLS
    assert outcome.flushed > 0


@pytest.mark.slow
@pytest.mark.timeout(300 + SECONDS)
def test_kills_and_network_faults_together_lose_no_flushed_record(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    end = time.monotonic() + SECONDS
    outcome = undergo(
        hub, api, repo_id, tmp_path / "run", seed=SEED, goes_on=lambda _: time.monotonic() < end, faults=True
    )
    with capfd.disabled():
        print(f"\nseed {SEED}: {outcome}")  # noqa: T201 - the lane's result
    assert outcome.requests_that_failed > 0
