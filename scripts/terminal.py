"""Take the picture of a terminal for the documentation: commands that are run against a Hub on this machine.

    python scripts/terminal.py [PICTURE]

The output is real, except that it names huggingface.co and an account instead of the local Hub and its user.
"""

from __future__ import annotations

import base64
import html
import os
import pty
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from chromium import BROWSERS, Browser, find_browser

from hf_summary_writer.localhub import LocalHub

PICTURE = Path(__file__).parents[1] / "docs" / "terminal.png"
TRAINING = """
import math, time
from hf_summary_writer import HFSummaryWriter

with HFSummaryWriter("my-experiments", logdir="runs/first") as writer:
    for step in range(500):
        writer.add_scalar("loss", math.exp(-step / 100), step)
        time.sleep(0.01)  # your training step

print("See it at", writer.url)
"""
COMMANDS = ("cat train.py", "python train.py", "hf-summary-writer status runs")
COLORS = {"31": "#ff7b72", "32": "#7ee787", "33": "#e3b341"}
PAGE = """<!doctype html><meta charset="utf-8">
<style>
  body { margin: 0; background: #0d1117; }
  pre { margin: 0; padding: 20px 24px; width: max-content; color: #e6edf3; }
  pre { font: 15px/1.45 "DejaVu Sans Mono", monospace; }
  b { color: #79c0ff; font-weight: normal; }
</style>
<pre>%s</pre>
"""
SIZE = """(() => {
  const {width, height} = document.querySelector("pre").getBoundingClientRect();
  return [width, height];
})()"""


def main() -> None:
    """Take the picture."""
    picture = Path(sys.argv[1] if len(sys.argv) > 1 else PICTURE).absolute()
    program = find_browser()
    if program is None:
        sys.exit(f"No browser found: one of {', '.join(BROWSERS)} is needed.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        page = folder / "terminal.html"
        page.write_text(PAGE % session(folder), encoding="utf-8")
        with Browser(program) as browser:
            browser.call("Page.navigate", url=page.as_uri())
            browser.wait_for("document.querySelector('pre') !== null")
            answer = browser.call("Runtime.evaluate", expression=SIZE, returnByValue=True)
            width, height = answer["result"]["value"]
            clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 2}
            taken = browser.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        picture.write_bytes(base64.b64decode(taken["data"]))
    print(f"{picture}: {picture.stat().st_size} bytes")


def session(folder: Path) -> str:
    """Run the commands and return the content of the terminal as HTML."""
    work = folder / "work"
    work.mkdir()
    (work / "train.py").write_text(TRAINING.lstrip(), encoding="utf-8")
    shown = ""
    with LocalHub(folder / "hub") as hub:
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": hub.token,
            "HF_HOME": str(folder / "home"),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "TERM": "xterm-256color",
        }
        for command in COMMANDS:
            output = on_terminal(command, work, environment)
            shown += f"<b>$</b> {html.escape(command)}\n{colored(output)}\n"
        for real, told in ((hub.endpoint, "https://huggingface.co"), ("local/", "my-name/"), (str(work), "~")):
            shown = shown.replace(real, told)
    return shown.rstrip()


def on_terminal(command: str, folder: Path, environment: dict[str, str]) -> str:
    """Run a command on a terminal and return its output."""
    ours, its = pty.openpty()
    with subprocess.Popen(["bash", "-c", command], cwd=folder, env=environment, stdout=its, stderr=its) as process:
        os.close(its)
        output = b""
        while True:
            try:
                chunk = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            output += chunk
            if not chunk:
                break
    os.close(ours)
    if process.returncode:
        sys.exit(f"{command}: {output.decode()}")
    # A redrawn line, such as a progress bar, is shown in its last state.
    return "".join(line.rpartition("\r")[2] + "\n" for line in output.decode().replace("\r\n", "\n").splitlines())


def colored(output: str) -> str:
    """Return the output of a terminal as HTML."""
    text = re.sub(r"\x1b\[(\d+)m", lambda code: f"\0{code[1]}\0", output)
    text = html.escape(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text))
    for code, color in COLORS.items():
        text = text.replace(f"\0{code}\0", f'<span style="color:{color}">')
    return re.sub(r"\0\d+\0", "</span>", text)


if __name__ == "__main__":
    main()
