"""Measure many runs at once: this project and huggingface_hub side by side, against a Hub with a commit limit.

    python benchmarks/sweep.py                   measure all and print
    python benchmarks/sweep.py writers           only this part
    python benchmarks/sweep.py --write           also put the tables of these parts into docs/performance.md

64 writers log for some intervals of a short `commit_every`, in one process and in eight, to one repo of a local Hub
that answers 429 after 128 commits, as the Hub does within an hour. Then trials on a local Ray cluster take turns in
logging with this project and with tensorboardX, which pushes nothing; without Ray that part is left out, and named.
"""

from __future__ import annotations

import sys

# The script's own folder goes to the end: a file in it is named as a module of Python's own.
sys.path.append(sys.path.pop(0))

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import shared

if TYPE_CHECKING:
    from collections.abc import Iterator

    from huggingface_hub import HfApi

OURS, THEIRS, PLAIN = "hf-summary-writer", "huggingface_hub", "tensorboardX"
WRITERS, COMMITS_PER_HOUR = 64, 128
COMMIT_EVERY = 0.1  # minutes
INTERVALS = 4
# The Hub of this benchmark has no more commits to give for an hour; nobody is waited for that long.
PATIENCE_SECONDS = 60.0
STEPS = 250

Figures = dict[str, Any]


# Functions that run in the measured processes


def run_writers(who: str, parent: str, repo_id: str, first: int, count: int) -> None:
    """Log with `count` writers at once for some intervals, and leave them as a user does."""
    # torch is not measured here, and takes seconds to import.
    sys.modules["torch"] = None  # type: ignore[assignment]
    if who == THEIRS:
        from huggingface_hub import HFSummaryWriter
    else:
        from hf_summary_writer import HFSummaryWriter  # type: ignore[assignment]
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(
                HFSummaryWriter(repo_id, logdir=str(Path(parent, f"run-{n:02d}")), commit_every=COMMIT_EVERY)
            )
            for n in range(first, first + count)
        ]
        deadline, step = time.monotonic() + INTERVALS * COMMIT_EVERY * 60, 0
        while time.monotonic() < deadline:
            for writer in writers:
                writer.add_scalar("loss", 1 / (step + 1), step)
            step += 1
            time.sleep(0.1)


def run_sweep(repo_id: str, parent: str, ray_folder: str, rounds: int) -> Figures:
    """Let trials on a Ray cluster alternate between both libraries; return the seconds of a step with each."""
    import ray
    from ray import tune

    def trainable(config: dict[str, Any]) -> None:
        import numpy as np

        if config["trial"] % 2:
            from tensorboardX import SummaryWriter

            writer: Any = SummaryWriter(str(Path(parent, f"trial-{config['trial']}")))
        else:
            from hf_summary_writer import HFSummaryWriter

            writer = HFSummaryWriter(repo_id, logdir=str(Path(parent, f"trial-{config['trial']}")), commit_every=0.03)
        matrix, seconds = np.random.default_rng(1).random((400, 400)), []
        with writer:
            for step in range(STEPS):
                began = time.perf_counter()
                matrix = matrix @ matrix
                matrix /= matrix.max()
                for name in "abcde":
                    writer.add_scalar(name, float(matrix[0, 0]), step)
                seconds.append(time.perf_counter() - began)
        tune.report({"step": statistics.mean(seconds)})

    ray.init(
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=80 * 2**20,
        _temp_dir=ray_folder,
    )
    results = tune.Tuner(
        trainable,
        # The first two warm up: they import the packages that both need.
        param_space={"trial": tune.grid_search(list(range(2 * rounds + 2)))},
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(name="sweep", storage_path=str(Path(ray_folder, "results")), verbose=0),
    ).fit()
    by_trial = {result.config["trial"]: result.metrics["step"] for result in results}
    ray.shutdown()
    pairs = [(by_trial[trial], by_trial[trial + 1]) for trial in range(2, 2 * rounds + 2, 2)]
    return {
        "ours": statistics.median(ours for ours, _ in pairs),
        "plain": statistics.median(plain for _, plain in pairs),
        "ratio": statistics.median(ours / plain for ours, plain in pairs),
    }


# Functions that start these processes


def environment(hub: Any, place: Path) -> dict[str, str]:
    return {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": hub.token,
        "HF_HOME": str(place / "home"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_SUMMARY_WRITER_COMMITS_PER_HOUR": str(COMMITS_PER_HOUR),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "RAY_AIR_NEW_OUTPUT": "0",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def command(function: str, *arguments: Any) -> list[str]:
    return [sys.executable, "-W", "ignore", __file__, "--call", json.dumps([function, *arguments])]


def is_there(api: HfApi, repo_id: str, parent: Path) -> tuple[int, int]:
    """Return how many of the runs' event files the Hub holds whole, and how many there are."""
    here = {path.relative_to(parent).as_posix(): path.stat().st_size for path in parent.rglob("*.tfevents.*")}
    held = {}
    with contextlib.suppress(Exception):  # the repo may not be there yet
        for entry in api.list_repo_tree(repo_id, "tensorboard", recursive=True):
            held[entry.path.removeprefix("tensorboard/")] = getattr(entry, "size", None)
    return sum(held.get(path) == size for path, size in here.items()), len(here)


def measure_writers(who: str, processes: int) -> Figures:
    from huggingface_hub import HfApi

    from hf_summary_writer.localhub import LocalHub

    with (
        tempfile.TemporaryDirectory() as folder,
        LocalHub(Path(folder, "hub"), commits_per_hour=COMMITS_PER_HOUR, any_namespace=True) as hub,
    ):
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        parent, share, began = Path(folder, "runs"), WRITERS // processes, time.time()
        parent.mkdir()
        running = [
            subprocess.Popen(
                command("run_writers", who, str(parent), "bench/sweep", n * share, share),
                env=environment(hub, Path(folder)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for n in range(processes)
        ]
        cpu, ended = 0.0, 0.0
        for process in running:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            cpu += used.ru_utime + used.ru_stime
        ended = time.time()
        counted = list(hub.requests)
        requests = hub.stats.requests
        while (arrived := is_there(api, "bench/sweep", parent))[0] < arrived[1]:
            if time.time() - ended > PATIENCE_SECONDS:
                break
            time.sleep(1)
        last_commit = api.list_repo_commits("bench/sweep")[0].created_at.timestamp()
    commits = [seen.status for seen in counted if seen.method == "POST" and "/commit/" in seen.path]
    return {
        "commits": commits.count(200),
        "requests": requests,
        "429": sum(seen.status == 429 for seen in counted),
        "end": ended - began,
        "whole": last_commit - began if arrived[0] == arrived[1] else None,
        "arrived": arrived,
        "cpu": cpu,
    }


def writers_part(rounds: int) -> Iterator[str]:
    seconds = INTERVALS * COMMIT_EVERY * 60
    yield from heading(
        f"{WRITERS} writers for {seconds:.0f} s, with a push every {COMMIT_EVERY * 60:.0f} s, "
        f"to a Hub that accepts {COMMITS_PER_HOUR} commits",
        "writers",
        "library",
        "commits",
        "requests",
        "429 responses",
        "complete files on the Hub",
        "s until complete",
        "s until exit",
        "CPU seconds",
    )
    for processes in (1, 8):
        where = "all in one process" if processes == 1 else f"in {processes} processes"
        for who in (OURS, THEIRS):
            found = measure_writers(who, processes)
            arrived = f"{found['arrived'][0]} of {found['arrived'][1]}"
            figures = (found["commits"], found["requests"], found["429"], arrived)
            whole = "never" if found["whole"] is None else f"{found['whole']:.0f}"
            yield row(where, who, *figures, whole, f"{found['end']:.0f}", f"{found['cpu']:.1f}")


def ray_part(rounds: int) -> Iterator[str]:
    from hf_summary_writer.localhub import LocalHub

    yield from heading("A training step of a trial on a Ray cluster, with 5 scalars", "", OURS, PLAIN, "ratio")
    ray_folder = tempfile.mkdtemp(prefix="ray-")
    with tempfile.TemporaryDirectory() as folder, LocalHub(Path(folder, "hub"), any_namespace=True) as hub:
        ended = subprocess.run(
            command("run_sweep", "bench/ray", str(Path(folder, "runs")), ray_folder, rounds),
            env=environment(hub, Path(folder)),
            capture_output=True,
            text=True,
            check=False,
        )
    shutil.rmtree(ray_folder, ignore_errors=True)
    if ended.returncode:
        raise SystemExit(f"the trials failed:\n{ended.stdout}\n{ended.stderr}")
    found: Figures = json.loads(ended.stdout.splitlines()[-1])
    yield row("ms", f"{found['ours'] * 1e3:.2f}", f"{found['plain'] * 1e3:.2f}", f"{found['ratio']:.3f}")


PARTS = {"writers": writers_part, "ray": ray_part}


def heading(title: str, *columns: str) -> Iterator[str]:
    yield f"\n**{title}**\n"
    yield row(*columns)
    yield "| --- |" + " ---: |" * (len(columns) - 1)


def row(*cells: object) -> str:
    return f"| {' | '.join(str(each) for each in cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=9, help="pairs of trials on the Ray cluster")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    parser.add_argument("--call", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.call:
        function, *rest = json.loads(arguments.call)
        result = globals()[function](*rest)
        if result is not None:
            print(json.dumps(result))
        return
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    machine = f"{platform.machine()}, {os.cpu_count()} cores with a load of {os.getloadavg()[0]:.1f}"
    machine = f"{machine}, CPython {platform.python_version()}."
    print(machine)
    for name in arguments.parts or PARTS:
        if name == "ray" and importlib.util.find_spec("ray") is None:
            print("\nLeft out: the trials on a Ray cluster; ray is not installed.")
            continue
        lines = []
        for line in PARTS[name](arguments.rounds):
            print(line, flush=True)
            lines.append(line)
        if arguments.write:
            shared.put(shared.PERFORMANCE, name, "\n".join([*lines, "", machine]))


if __name__ == "__main__":
    main()
