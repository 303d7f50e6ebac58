"""TensorBoard, started by `hf-summary-writer view` on a bucket, in a real browser."""

from __future__ import annotations

import json
import re
import signal
from typing import TYPE_CHECKING

import pytest
from chromium import Browser, find_browser

import commands
from hf_summary_writer import HFSummaryWriter
from hub.test_bucket import needs_a_client_for_buckets

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

CHROMIUM = find_browser()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
    needs_a_client_for_buckets,
]

SECONDS = 60.0
# "Reload data" in TensorBoard's settings.
SETTINGS = json.dumps({"autoReload": True, "autoReloadPeriodInMs": 15_000})
RELOADS = f"localStorage.setItem('_tb_global_settings', {json.dumps(SETTINGS)})"
# The largest number on the axes of a chart.
LARGEST = """
Math.max(...[...document.querySelectorAll("card-view svg text, scalar-card svg text")]
  .map((text) => Number(text.textContent.replace(/,/g, "").replace("k", "000"))).filter(Number.isFinite), -1)
"""


def test_a_new_point_appears_without_a_manual_reload(hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path) -> None:
    assert CHROMIUM
    logdir = tmp_path / "run"
    with HFSummaryWriter(repo_id, logdir=logdir, repo_type="bucket", hf_api=api, commit_every=1 / 60) as writer:
        for step in range(5):
            writer.add_scalar("loss", 0.5, step)
        writer.scheduler.trigger().result(SECONDS)
        with (
            commands.start(hub, "view", f"hf://buckets/{repo_id}", "--port", 0, home=tmp_path) as process,
            Browser(CHROMIUM, 200) as browser,
        ):
            assert process.stderr is not None
            board = next(found[0] for line in process.stderr if (found := re.search(r"http://\S+/", line)))
            browser.call("Page.navigate", url=board)
            browser.wait_for("document.readyState == 'complete'")
            browser.call("Runtime.evaluate", expression=RELOADS)
            browser.call("Page.navigate", url=f"{board}?fresh#timeseries")
            browser.wait_for(f"{LARGEST} >= 4 && {LARGEST} < 100")
            writer.add_scalar("loss", 0.5, 1000)
            browser.wait_for(f"{LARGEST} >= 500")
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
