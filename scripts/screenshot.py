"""Take the screenshot of the documentation: runs that were pushed to a Hub and downloaded again, in TensorBoard.

The screenshot is real: the runs go through the writer, a Hub on this machine, the client's download, TensorBoard and
Chromium. It fails if the page does not show every tag and every run that was logged.

    python scripts/screenshot.py [PICTURE]
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

# Read when the client is imported.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

from chromium import BROWSERS, Browser, find_browser
from huggingface_hub import HfApi

from hf_summary_writer import HFSummaryWriter
from hf_summary_writer.localhub import LocalHub

if TYPE_CHECKING:
    from collections.abc import Iterator


PICTURE = Path(__file__).parents[1] / "docs" / "tensorboard.png"
RATES = {"rate-0.1": 40, "rate-0.03": 90}
TAGS = ("accuracy/test", "loss/train")
SECONDS = 120
# Both charts fit.
SIZE = {"width": 1280, "height": 1200, "deviceScaleFactor": 1, "mobile": False}
# Every name is there, and each card shows two curves, drawn and no longer moving.
SHOWN = f"""
(() => {{
  const text = document.body.innerText.replace(/\\s+/g, "");
  const curves = document.querySelectorAll("scalar-card line-chart").length;
  const busy = document.querySelectorAll("mat-spinner, mat-progress-bar").length;
  const done = {json.dumps([*TAGS, *RATES])}.every((name) => text.includes(name)) && curves >= {len(TAGS)} && !busy;
  const before = window.shownSince;
  window.shownSince = done ? before ?? Date.now() : undefined;
  return done && Date.now() - window.shownSince > 2000;
}})()
"""


def main() -> None:
    """Take the screenshot."""
    picture = Path(sys.argv[1] if len(sys.argv) > 1 else PICTURE).absolute()
    program = find_browser()
    if program is None:
        sys.exit(f"No browser found: one of {', '.join(BROWSERS)} is needed.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with LocalHub(folder / "hub") as hub:
            api = HfApi(endpoint=hub.endpoint, token=hub.token)
            push_runs(api, folder / "runs")
            api.snapshot_download("local/my-experiments", local_dir=folder / "download")
        with tensorboard(folder / "download" / "tensorboard") as address:
            with Browser(program) as browser:
                browser.call("Emulation.setDeviceMetricsOverride", **SIZE)
                browser.call("Page.navigate", url=f"{address}?darkMode=false#timeseries")
                browser.wait_for(SHOWN)
                taken = browser.call("Page.captureScreenshot", format="png")
            picture.write_bytes(base64.b64decode(taken["data"]))
    print(f"{picture}: {picture.stat().st_size} bytes")


def push_runs(api: HfApi, runs: Path) -> None:
    """Log two runs of a made-up training and push them."""
    chance = random.Random(0)
    for run, pace in RATES.items():
        with HFSummaryWriter("my-experiments", logdir=runs / run, hf_api=api) as writer:
            for step in range(400):
                writer.add_scalar("loss/train", math.exp(-step / pace) + 0.05 * chance.random(), step)
                if step % 10 == 0:
                    writer.add_scalar("accuracy/test", 0.97 - 0.87 * math.exp(-step / pace / 0.7), step)


@contextlib.contextmanager
def tensorboard(folder: Path) -> Iterator[str]:
    """Run TensorBoard on a folder and yield its address."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", "0", "--load_fast", "false"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as board:
        late = threading.Timer(SECONDS, board.kill)
        late.start()
        try:
            assert board.stderr is not None
            found = next((found for line in board.stderr if (found := re.search(r"http://\S+/", line))), None)
            if found is None:
                sys.exit("TensorBoard did not start.")
            # A page that is opened before TensorBoard has read the files stays empty.
            while not all(name in fetched(f"{found[0]}data/plugin/scalars/tags") for name in (*TAGS, *RATES)):
                time.sleep(0.2)
            yield found[0]
        finally:
            late.cancel()
            board.terminate()
            board.communicate()


def fetched(address: str) -> str:
    """Return the text at a URL."""
    with urllib.request.urlopen(address, timeout=SECONDS) as answer:
        return str(answer.read(), "utf-8")


if __name__ == "__main__":
    main()
