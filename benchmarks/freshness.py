"""How far a curve on somebody else's screen is behind the training, from `add_scalar` to TensorBoard's HTTP API.

    python benchmarks/freshness.py                      measure all and print
    python benchmarks/freshness.py bucket --runs 1 8    only this way, with one run and with eight
    python benchmarks/freshness.py --write              also put the table into docs/performance.md

A training logs a scalar per run four times a second for two minutes, to a bucket or repo of a local Hub in a process of
its own. A viewer keeps TensorBoard up to date from there, and another process reads TensorBoard's API. TensorBoard
keeps the time at which a scalar was logged, so the lag of a point is the time at which it is first seen, less that.
"""

from __future__ import annotations

import sys

# The script's own folder goes to the end: a file in it is named as a module of Python's own.
sys.path.append(sys.path.pop(0))

import argparse
import contextlib
import json
import os
import platform
import re
import socket
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import shared

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hf_summary_writer.localhub import LocalHub

REPO_ID = "bench/fresh"
POINTS_PER_SECOND = 4.0
LOOK_SECONDS = 0.25
# The number of runs to observe of many, since each observation is a request.
MOST_WATCHED = 8
# After the training, for the last points.
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Way:
    """A way from a training to a viewer.

    Attributes:
        label: Its name in the table.
        options: The arguments of `HFSummaryWriter`.
        make: Code of a function that makes a writer of another kind.
        viewer: Code that keeps TensorBoard's logdir up to date; without it, our `view` does, with `view_options`.
        view_options: Options of `hf-summary-writer view`.
    """

    label: str
    options: str = ""
    make: str = ""
    viewer: str = ""
    view_options: tuple[str, ...] = ()


_OURS = """
from hf_summary_writer import HFSummaryWriter
def make(folder, n):
    return HFSummaryWriter({repo_id!r}, logdir=folder, {options})
"""
_PLAIN = f"""
from huggingface_hub import CommitScheduler
from tensorboardX import SummaryWriter
def make(folder, n):
    CommitScheduler(repo_id={REPO_ID!r}, folder_path=folder, path_in_repo=f"tensorboard/run-{{n}}", every=3/60)
    return SummaryWriter(folder, flush_secs=1)
"""

_SNAPSHOTS = """
import os, sys, time
from huggingface_hub import snapshot_download
from huggingface_hub.utils import disable_progress_bars
disable_progress_bars()
while True:
    try:
        snapshot_download(sys.argv[1], local_dir=sys.argv[2], allow_patterns="*.tfevents.*")
    except Exception:
        pass
    time.sleep(1)
"""

WAYS = {
    "bucket": Way("bucket, a push every second", options="repo_type='bucket', commit_every=1/60"),
    "default": Way("bucket, defaults (15 s)", options="repo_type='bucket'"),
    "repo": Way(
        "repo, a push every 3 s, `view --refresh 1`", options="commit_every=3/60", view_options=("--refresh", "1")
    ),
    "plain": Way(
        "tensorboardX, `CommitScheduler` of huggingface_hub every 3 s, `snapshot_download` every second",
        make=_PLAIN,
        viewer=_SNAPSHOTS,
    ),
}

_TRAINING = """
import os, sys, time
{make}
folder, runs, seconds, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
writers = [make(os.path.join(folder, f"run-{{n}}"), n) for n in range(runs)]
began, step = time.monotonic(), 0
while time.monotonic() - began < seconds:
    for writer in writers:
        writer.add_scalar("clock", step, step)
    step += 1
    time.sleep(max(0.0, began + step / rate - time.monotonic()))
print("logged", step, flush=True)
for writer in writers:
    writer.close()
"""


class Observer:
    """Records the time at which each point of some runs is first visible.

    Args:
        board: The address of TensorBoard.
        runs: The names of the runs.
    """

    def __init__(self, board: str, runs: list[str]) -> None:
        self._board = board
        self._runs = runs
        self.lags: dict[tuple[str, int], float] = {}

    def look(self) -> None:
        for run in self._runs:
            query = urllib.parse.urlencode({"run": run, "tag": "clock"})
            with contextlib.suppress(OSError, ValueError):
                with urllib.request.urlopen(f"{self._board}data/plugin/scalars/scalars?{query}", timeout=10) as answer:
                    points = json.load(answer)
                now = time.time()
                for logged, step, _ in points:
                    self.lags.setdefault((run, int(step)), now - logged)


def measure(hub: LocalHub, way: Way, runs: int, seconds: float) -> list[float]:
    """Return the lag of each observed point, in seconds."""
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_SUMMARY_WRITER_QUIET": "1"}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        environment["HF_HOME"] = str(folder / "home")
        make = way.make or _OURS.format(options=way.options, repo_id=REPO_ID)
        source = _TRAINING.format(make=make)
        words = [str(folder / "runs"), str(runs), str(seconds), str(POINTS_PER_SECOND)]
        _create(hub, way)
        board = stack.enter_context(_board(folder, way, environment))
        observer = Observer(board, [f"tensorboard/run-{number}" for number in range(min(runs, MOST_WATCHED))])
        training = stack.enter_context(
            subprocess.Popen([sys.executable, "-c", source, *words], env=environment, stdout=subprocess.PIPE, text=True)
        )
        steps: list[int] = []
        threading.Thread(
            target=lambda: steps.extend(int(line.split()[1]) for line in training.stdout or ()), daemon=True
        ).start()
        deadline = time.monotonic() + seconds + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            observer.look()
            if steps and len(observer.lags) >= steps[0] * min(runs, MOST_WATCHED):
                break
            time.sleep(LOOK_SECONDS)
        expected = (steps[0] if steps else 0) * min(runs, MOST_WATCHED)
        if len(observer.lags) < expected:
            print(f"  only {len(observer.lags)} of {expected} points were seen")
        return list(observer.lags.values())


def _create(hub: LocalHub, way: Way) -> None:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=hub.endpoint, token=hub.token)
    api.delete_bucket(REPO_ID, missing_ok=True)
    api.delete_repo(REPO_ID, missing_ok=True)
    if "bucket" in way.options:
        api.create_bucket(REPO_ID)
    else:
        api.create_repo(REPO_ID)


@contextlib.contextmanager
def _board(folder: Path, way: Way, environment: dict[str, str]) -> Iterator[str]:
    """Start the viewer, and yield the address of its TensorBoard."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shown = folder / "shown"
    if way.viewer:
        shown.mkdir()
        board = [sys.executable, "-m", "tensorboard.main", "--logdir", str(shown), "--port", port]
        commands = [
            [sys.executable, "-c", way.viewer, REPO_ID, str(shown)],
            [*board, "--reload_interval", "1", "--reload_multifile", "true"],
        ]
    else:
        place = f"hf://buckets/{REPO_ID}" if "bucket" in way.options else REPO_ID
        options = ["--port", port, "--folder", str(shown), *way.view_options]
        commands = [[sys.executable, "-m", "hf_summary_writer", "view", place, *options]]
    with contextlib.ExitStack() as stack:
        for each in commands:
            process = stack.enter_context(
                subprocess.Popen(each, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
            )
            stack.callback(process.terminate)
        lines = iter(process.stderr or ())
        found = next((match for line in lines if (match := re.search(r"http://\S+/", line))), None)
        if found is None:
            raise SystemExit("TensorBoard did not start")
        threading.Thread(target=_drain, args=(lines,), daemon=True).start()
        yield found[0]


def _drain(lines: Iterator[str]) -> None:
    """Discard the remaining output, so that the pipe does not fill up."""
    with contextlib.suppress(ValueError):  # closed at the end
        for _ in lines:
            pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ways", nargs="*", metavar="WAY", help=f"of {', '.join(WAYS)}")
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=120.0, help="length of each training")
    parser.add_argument("--write", action="store_true", help="put the table into docs/performance.md")
    arguments = parser.parse_args()
    unknown = set(arguments.ways) - set(WAYS)
    if unknown:
        parser.error(f"no such way: {', '.join(sorted(unknown))}")
    lines = ["| way | runs | p50 | p95 | max |", "| --- | ---: | ---: | ---: | ---: |"]
    print("\n".join(lines))
    from hf_summary_writer.localhub import LocalHub

    for name in arguments.ways or WAYS:
        for runs in arguments.runs:
            with tempfile.TemporaryDirectory() as root, LocalHub(root, any_namespace=True) as hub:
                lags = measure(hub, WAYS[name], runs, arguments.seconds)
            if len(lags) < 2:
                cells = ["none seen", "", ""]
            else:
                cuts = statistics.quantiles(lags, n=20, method="inclusive")
                cells = [f"{each:.1f} s" for each in (statistics.median(lags), cuts[18], max(lags))]
            lines.append(f"| {WAYS[name].label} | {runs} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    machine = f"{platform.machine()}, {os.cpu_count()} cores with a load of {os.getloadavg()[0]:.1f}"
    machine = f"{machine}, CPython {platform.python_version()}."
    print(machine)
    if arguments.write:
        shared.put(shared.PERFORMANCE, "freshness", "\n".join([*lines, "", machine]))


if __name__ == "__main__":
    main()
