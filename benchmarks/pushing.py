"""Measure the cost of a push: this project and huggingface_hub's CommitScheduler, against the local Hub.

    python benchmarks/pushing.py                 measure all and print
    python benchmarks/pushing.py --quick         smaller files, fewer rounds
    python benchmarks/pushing.py bytes scan      only these parts
    python benchmarks/pushing.py --write         also put the tables of these parts into docs/performance.md

Every figure comes from a process of its own, with an empty cache of the client. Contestants take turns in every round,
so that a busy machine is unfair to all alike. Figures are medians over the rounds, followed by the range of ours; a
peer's runs that take minutes are measured in the first round only.
"""

from __future__ import annotations

import sys

# The script's own folder goes to the end: a file in it is named as a module of Python's own.
sys.path.append(sys.path.pop(0))

import argparse
import importlib
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import shared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OURS, OURS_LFS, THEIRS = "hf-summary-writer", "hf-summary-writer, plain LFS", "huggingface_hub"
OURS_BUCKET = "hf-summary-writer, bucket"
HOUR = 60.0  # minutes
SECONDS = 900.0
MB = 10**6
EVENTS = "events.out.tfevents.1700000000.another.writer"

Figures = dict[str, Any]


# Functions that run in the measured processes


def scheduler(who: str, folder: Path, repo_id: str) -> Any:
    """Return a scheduler on a folder whose first push is over."""
    settings = {"every": HOUR, "allow_patterns": "*.tfevents.*", **where(who)}
    made = library(who).CommitScheduler(repo_id=repo_id, folder_path=folder, **settings)
    made.trigger().result(SECONDS)
    return made


def writer(who: str, folder: Path, repo_id: str) -> Any:
    return library(who).HFSummaryWriter(repo_id, logdir=str(folder), commit_every=HOUR, **where(who))


def library(who: str) -> Any:
    # One of them alone, in the process that is measured.
    return importlib.import_module("huggingface_hub" if who == THEIRS else "hf_summary_writer")


def where(who: str) -> dict[str, str]:
    return {"repo_type": "bucket"} if who == OURS_BUCKET else {}


def log(target: Any, kind: str, size: int, step: int, seeded: random.Random) -> int:
    """Log about `size` bytes of one kind of data as a training loop does; return the next step."""
    import numpy as np

    noise = np.random.default_rng(seeded.randrange(2**32))
    if kind == "scalars":  # 49 bytes each
        end = step + size // 49
        for at in range(step, end):
            target.add_scalar("train/loss", 2.0 / (1 + at) + seeded.random() * 0.01, at)
    elif kind == "histograms":  # about 10 kB each
        end = step + max(1, size // 10_000)
        for at in range(step, end):
            target.add_histogram("weights", noise.normal(size=1000), at)
    else:  # noise does not compress: about 3 bytes a pixel
        end, side = step + 1, max(4, int((size / 3) ** 0.5))
        target.add_image("sample", noise.integers(0, 256, (3, side, side), dtype=np.uint8), step)
    return end


def run_appends(who: str, folder: Path, repo_id: str, kind: str, pushes: int, size: int) -> Figures:
    """Log and push in turns with a whole writer, as a run does."""
    run = writer(who, folder, repo_id)
    run.scheduler.trigger().result(SECONDS)
    seeded, step, seconds = random.Random(1), 0, []
    for _ in range(pushes):
        step = log(run, kind, size, step, seeded)
        run.flush()
        began = time.perf_counter()
        run.scheduler.trigger().result(SECONDS)
        seconds.append(time.perf_counter() - began)
    logged = sum(path.stat().st_size for path in folder.rglob("*.tfevents.*"))
    run.scheduler.stop()
    return {"logged": logged, "seconds": statistics.median(seconds)}


def run_growing(who: str, folder: Path, repo_id: str, sizes: list[int]) -> Figures:
    """Measure a push of 50 kB when so much is published already; ours lies in segments, theirs in one file."""
    from hf_summary_writer.events.files import EventFile
    from hf_summary_writer.events.tfrecord import frame

    seeded = random.Random(1)
    folder.mkdir(parents=True, exist_ok=True)
    segments = EventFile(str(folder)) if who != THEIRS else None

    def write(length: int) -> None:
        # A quarter of noise, so that it compresses about as well as a mixed run.
        for _ in range(0, length, 1000):
            record = frame(seeded.randbytes(250) + b"\0" * 734)
            if segments is not None:
                segments.append([record])
            else:
                file.write(record)
        file.flush()

    with (folder / EVENTS).open("ab") if who == THEIRS else open(os.devnull, "ab") as file:
        pushing = scheduler(who, folder, repo_id)
        published, figures = 0, {}
        for size in sizes:
            write(size - published)
            published = size
            pushing.trigger().result(SECONDS)
            seconds = []
            for _ in range(3 if who == THEIRS else 15):
                write(50_000)
                began = time.perf_counter()
                pushing.trigger().result(SECONDS)
                seconds.append(time.perf_counter() - began)
            figures[str(size)] = statistics.median(seconds)
    pushing.stop()
    return figures


def run_memory(who: str, folder: Path, repo_id: str, size: int) -> Figures:
    """Measure the peak of the private memory while a large event file of another writer is pushed."""
    import psutil

    from hf_summary_writer.events.tfrecord import frame

    process, peak, over = psutil.Process(), 0, threading.Event()
    small = folder / "idle"
    small.mkdir(parents=True)
    (small / EVENTS).write_bytes(frame(b"x" * 100) * 2)
    pushing = scheduler(who, small, f"{repo_id}-idle")
    idle = process.memory_full_info().uss

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.02):
            peak = max(peak, process.memory_full_info().uss)

    watcher = threading.Thread(target=watch)
    seeded = random.Random(1)
    with (folder / EVENTS).open("wb") as file:
        for _ in range(0, size, 100_000):
            file.write(frame(seeded.randbytes(100_000 - 16)))
    watcher.start()
    began = time.perf_counter()
    scheduler(who, folder, repo_id).stop()
    seconds = time.perf_counter() - began
    over.set()
    watcher.join()
    pushing.stop()
    return {"above idle": peak - idle, "seconds": seconds}


def run_scan(who: str, folder: Path, repo_id: str, files: int) -> Figures:
    """Measure a push of a folder in which nothing changed; the scheduler is told that all files have arrived."""
    for number in range(files):
        if number % 1000 == 0:
            (folder / str(number // 1000)).mkdir(parents=True)
        (folder / str(number // 1000) / f"{EVENTS}.{number}").touch()
    if who == THEIRS:
        pushing = scheduler(who, folder / "0" / "nothing", repo_id)
        pushing.folder_path = folder
        found = (path for path in folder.rglob("*") if path.is_file())
        pushing.last_uploaded = {path: path.stat().st_mtime for path in found}
    else:
        from hf_summary_writer.folder.ledger import LedgerEntry
        from hf_summary_writer.folder.patterns import PathFilter
        from hf_summary_writer.folder.scan import FolderScan

        pushing = scheduler(who, folder, repo_id)
        # A scan of its own: the scheduler skips these files, since they hold no record.
        found = FolderScan(str(folder), PathFilter("*.tfevents.*"))
        arrived = {candidate.relpath: LedgerEntry(candidate.signature, 0) for candidate in found}
        assert len(arrived) == files
        pushing._pusher.ledger.record(arrived)
        pushing.stop()
        pushing = scheduler(who, folder, repo_id)
    import psutil

    seconds, before = [], psutil.Process().memory_full_info().uss
    for _ in range(7):
        began = time.perf_counter()
        assert pushing.push_to_hub() is None
        seconds.append(time.perf_counter() - began)
    pushing.stop()
    return {"seconds": statistics.median(seconds), "growth": psutil.Process().memory_full_info().uss - before}


def run_constructor(who: str, folder: Path, repo_id: str) -> Figures:
    import tensorboardX

    began = time.perf_counter()
    tensorboardX.SummaryWriter(str(folder / "plain"))
    plain = time.perf_counter() - began
    if who == THEIRS:
        from huggingface_hub import HFSummaryWriter
    else:
        from hf_summary_writer import HFSummaryWriter  # type: ignore[assignment]  # noqa: F401
    began = time.perf_counter()
    made = writer(who, folder / "run", repo_id)
    seconds = time.perf_counter() - began
    made.scheduler.stop()
    return {"beyond": seconds - plain}


def run_close(who: str, folder: Path, repo_id: str) -> Figures:
    """Measure the way out of a `with` block after a hundred scalars."""
    with writer(who, folder, repo_id) as run:
        run.add_scalar("loss", 0.0, 0)
        run.flush()
        run.scheduler.trigger().result(SECONDS)
        for step in range(100):
            run.add_scalar("loss", step, step)
        began = time.perf_counter()
    return {"seconds": time.perf_counter() - began}


def run_first(who: str, folder: Path, repo_id: str, size: int) -> Figures:
    from hf_summary_writer.events.tfrecord import frame

    folder.mkdir(parents=True)
    (folder / EVENTS).write_bytes(frame(random.Random(1).randbytes(984)) * (size // 1000))
    os.utime(folder / EVENTS, (1, 1))
    scheduler(who, folder, repo_id).stop()
    return {}


def run_again(who: str, folder: Path, repo_id: str) -> Figures:
    scheduler(who, folder, repo_id).stop()
    return {}


def run_training(who: str, folder: Path, repo_id: str, size: int) -> Figures:
    """Measure `add_scalar`, in a loop that computes a little, without a push and during one of a large file."""
    from hf_summary_writer.events.tfrecord import frame

    run = writer(who, folder, repo_id)
    run.scheduler.trigger().result(SECONDS)

    def calls(going: Callable[[], bool]) -> list[float]:
        taken = []
        while going():
            sum(range(2000))
            began = time.perf_counter()
            run.add_scalar("loss", 1.0, len(taken))
            taken.append(time.perf_counter() - began)
        return taken

    deadline = time.perf_counter() + 5
    idle = calls(lambda: time.perf_counter() < deadline)
    (folder / EVENTS).write_bytes(frame(random.Random(1).randbytes(9984)) * (size // 10_000))
    future = run.scheduler.trigger()
    pushing = calls(lambda: not future.done())
    run.scheduler.stop()
    percentile = statistics.quantiles(idle, n=100)[98], statistics.quantiles(pushing, n=100)[98]
    return {"idle": percentile[0], "pushing": percentile[1], "steps/s": len(idle) / 5}


# Functions that start these processes


class Arena:
    """Runs the functions above, each in a process of its own, and counts the Hub's requests and received bytes."""

    def __init__(self, hub: Any, root: Path) -> None:
        self.hub = hub
        self._root = root
        self._runs = 0

    def __call__(self, function: str, who: str, *arguments: Any, again: Figures | None = None) -> Figures:
        self._runs += 1
        place = Path(again["place"]) if again else self._root / str(self._runs)
        repo_id = again["repo_id"] if again else f"bench/run-{self._runs}"
        self.hub.reset_stats()
        environment = {
            **os.environ,
            "HF_ENDPOINT": self.hub.endpoint,
            "HF_TOKEN": self.hub.token,
            "HF_HOME": str(place / "home"),
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_XET": "1" if who == OURS_LFS else "",
        }
        place.mkdir(exist_ok=True)
        call = json.dumps([function, who, str(place / "run"), repo_id, *arguments])
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", __file__, "--call", call],
            env=environment,
            check=False,
            capture_output=True,
            text=True,
        )
        if ended.returncode:
            raise SystemExit(f"{function} of {who} failed:\n{ended.stderr}")
        stats = self.hub.stats
        figures: Figures = json.loads(ended.stdout.splitlines()[-1])
        figures["received"] = stats.lfs.received + stats.xorb.received + stats.shard.received
        figures["content"] = stats.lfs.received + stats.xorb.received
        figures["requests"] = stats.requests
        figures["api"] = stats.api.requests
        return {**figures, "place": str(place), "repo_id": repo_id}

    def forget(self) -> None:
        for place in self._root.iterdir():
            shutil.rmtree(place, ignore_errors=True)


def bytes_part(arena: Arena, quick: bool, rounds: int) -> Iterator[str]:
    yield from heading("Bytes received by the Hub per byte logged", "data | pushes", OURS, OURS_LFS, THEIRS, "ratio")
    cases = [(100, 50_000), (50, 500_000), (200, 5_000)]
    for pushes, size in [(10, 50_000), (5, 500_000)] if quick else cases:
        for kind in ("scalars", "histograms", "images of noise"):
            costs = {}
            for who in (OURS, OURS_LFS, THEIRS):
                if who != OURS and kind != "scalars":
                    continue  # plain LFS neither compresses nor deduplicates, so the kind of data makes no difference
                runs = [
                    arena("run_appends", who, kind, pushes, size)
                    for _ in range(rounds if who == OURS and kind == "scalars" else 1)
                ]
                costs[who] = [figures["received"] / figures["logged"] for figures in runs]
            their = costs.get(THEIRS)
            yield row(
                f"{kind} | {pushes} x {size // 1000} kB",
                *(spread(costs.get(who, []), 2) for who in (OURS, OURS_LFS, THEIRS)),
                f"{their[0] / statistics.median(costs[OURS]):.0f}" if their else "",
            )
            arena.forget()


def lfs_part(arena: Arena, quick: bool, rounds: int) -> Iterator[str]:
    yield from heading("MB sent per push of 500 kB over plain LFS, by number of pushes", "pushes", OURS, THEIRS)
    for pushes in (5, 10) if quick else (25, 50, 100):
        runs = (arena("run_appends", who, "scalars", pushes, 500_000) for who in (OURS_LFS, THEIRS))
        yield row(pushes, *(f"{figures['received'] / pushes / MB:.1f}" for figures in runs))
        arena.forget()


def requests_part(arena: Arena, quick: bool, rounds: int) -> Iterator[str]:
    yield from heading("Requests per push of one changed file", "", OURS, OURS_LFS, THEIRS)
    pairs = [
        [arena("run_appends", who, "scalars", pushes, 50_000) for pushes in (2, 12)] for who in (OURS, OURS_LFS, THEIRS)
    ]
    for name, key in (("to the Hub's API, which is rate-limited", "api"), ("all", "requests")):
        yield row(name, *(f"{(more[key] - few[key]) / 10:.1f}" for few, more in pairs))


def bucket_part(arena: Arena, quick: bool, rounds: int) -> Iterator[str]:
    yield from heading("A repo and a bucket", "scalars", OURS, OURS_BUCKET)
    for pushes, size in [(10, 50_000)] if quick else [(100, 50_000), (50, 500_000)]:
        pairs = [
            [arena("run_appends", who, "scalars", pushes, size) for _ in range(rounds)] for who in (OURS, OURS_BUCKET)
        ]
        shown = f"{pushes} x {size // 1000} kB"
        costs = [[each["received"] / each["logged"] for each in runs] for runs in pairs]
        yield row(f"{shown}: bytes received per byte logged", *(spread(each, 2) for each in costs))
        asked = [[each["api"] / pushes for each in runs] for runs in pairs]
        yield row(f"{shown}: requests to the API per push", *(spread(each, 1) for each in asked))
        arena.forget()


def growing_part(arena: Arena, quick: bool, rounds: int) -> Iterator[str]:
    sizes = [MB, 10 * MB, 100 * MB] if quick else [MB, 10 * MB, 100 * MB, 1000 * MB]
    yield from heading("Seconds per push of 50 kB, by size of the uploaded run", "MB uploaded", OURS, THEIRS, "ratio")
    ours = [arena("run_growing", OURS, sizes) for _ in range(rounds)]
    arena.forget()
    theirs = arena("run_growing", THEIRS, sizes)
    for size in map(str, sizes):
        seconds = [result[size] for result in ours]
        ratio = theirs[size] / statistics.median(seconds)
        yield row(int(size) // MB, spread(seconds, 3), f"{theirs[size]:.3f}", f"{ratio:.1f}")
    flat = [max(result[str(size)] for size in sizes) / min(result[str(size)] for size in sizes) for result in ours]
    yield row("slowest / fastest", spread(flat, 2), "", "")


def memory_part(arena: Arena, quick: bool, rounds: int) -> Iterator[str]:
    size = 100 * MB if quick else 1000 * MB
    yield from heading(f"Push of a {size // MB} MB event file of another writer", "", OURS, OURS_LFS, THEIRS)
    results: dict[str, list[Figures]] = {}
    for who in (OURS, OURS_LFS, THEIRS):
        results[who] = [arena("run_memory", who, size) for _ in range(rounds if who == OURS else 1)]
        arena.forget()
    yield row(
        "peak memory above idle, MB",
        *(spread([each["above idle"] / MB for each in runs], 0) for runs in results.values()),
    )
    yield row("seconds", *(spread([each["seconds"] for each in runs], 1) for runs in results.values()))


def scan_part(arena: Arena, quick: bool, rounds: int) -> Iterator[str]:
    yield from heading(
        "Push of an unchanged folder",
        "files",
        f"{OURS}, ms",
        f"{THEIRS}, ms",
        "ratio",
        "memory growth, kB",
    )
    for files in (100, 10_000) if quick else (100, 10_000, 50_000):
        pairs = [(arena("run_scan", OURS, files), arena("run_scan", THEIRS, files)) for _ in range(rounds)]
        ours, theirs = ([pair[n]["seconds"] * 1000 for pair in pairs] for n in (0, 1))
        growth = max(pair[0]["growth"] for pair in pairs)
        yield row(
            f"{files:,}",
            spread(ours, 1),
            f"{statistics.median(theirs):.1f}",
            spread([our / their for our, their in zip(ours, theirs, strict=True)], 2),
            f"{growth / 1000:.0f}",
        )
        arena.forget()


def constructor_part(arena: Arena, quick: bool, rounds: int) -> Iterator[str]:
    yield from heading("Constructor and close", "", OURS, THEIRS)
    pairs = [(arena("run_constructor", OURS), arena("run_constructor", THEIRS)) for _ in range(rounds)]
    yield row(
        "constructor, in addition to tensorboardX's, ms",
        *(spread([pair[n]["beyond"] * 1000 for pair in pairs], 1) for n in (0, 1)),
    )
    yield row("requests of constructor and empty exit", *(pairs[0][n]["requests"] for n in (0, 1)))
    pairs = [(arena("run_close", OURS), arena("run_close", THEIRS)) for _ in range(rounds)]
    yield row(
        "end of `with` block after 100 scalars, s",
        *(spread([pair[n]["seconds"] for pair in pairs], 2) for n in (0, 1)),
    )


def restart_part(arena: Arena, quick: bool, rounds: int) -> Iterator[str]:
    yield from heading("Restart on an uploaded folder of 10 MB", "", OURS, OURS_LFS, THEIRS)
    results = []
    for who in (OURS, OURS_LFS, THEIRS):
        first = arena("run_first", who, 10 * MB)
        results.append(arena("run_again", who, again=first))
    yield row("bytes sent", *(f"{result['received']:,}" for result in results))
    yield row("requests", *(result["requests"] for result in results))


def training_part(arena: Arena, quick: bool, rounds: int) -> Iterator[str]:
    size = 200 * MB
    yield from heading(
        f"`add_scalar` during a push of {size // MB} MB, p99 in microseconds", "", "no push", "push", "push / no push"
    )
    for who in (OURS, THEIRS):
        results = [arena("run_training", who, size) for _ in range(rounds)]
        idle, pushing = ([result[name] * 1e6 for result in results] for name in ("idle", "pushing"))
        ratios = [during / before for before, during in zip(idle, pushing, strict=True)]
        yield row(who, *(f"{statistics.median(each):.1f}" for each in (idle, pushing)), spread(ratios, 2))
        arena.forget()


PARTS = {
    "bytes": bytes_part,
    "lfs": lfs_part,
    "requests": requests_part,
    "bucket": bucket_part,
    "growing": growing_part,
    "memory": memory_part,
    "scan": scan_part,
    "constructor": constructor_part,
    "restart": restart_part,
    "training": training_part,
}


def heading(title: str, *columns: str) -> Iterator[str]:
    yield f"\n**{title}**\n"
    names = " | ".join(columns).split(" | ")
    yield row(*names)
    yield "| --- |" + " ---: |" * (len(names) - 1)


def row(*cells: object) -> str:
    return f"| {' | '.join(str(each) for each in cells)} |"


def spread(values: list[float], digits: int) -> str:
    """Return the median, and the range if it can be told from it."""
    if not values:
        return ""
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="put the tables of these parts into docs/performance.md")
    parser.add_argument("--call", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.call:
        function, who, folder, *rest = json.loads(arguments.call)
        print(json.dumps(globals()[function](who, Path(folder), *rest)))
        sys.stdout.flush()
        os._exit(0)  # functions that measure an exit do so themselves
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    from hf_summary_writer.localhub import LocalHub

    rounds = min(arguments.rounds, 2) if arguments.quick else arguments.rounds
    machine = f"{platform.machine()}, {os.cpu_count()} cores, CPython {platform.python_version()}; {rounds} rounds."
    print(machine)
    with tempfile.TemporaryDirectory() as folder, LocalHub(Path(folder, "hub"), any_namespace=True) as hub:
        arena = Arena(hub, Path(folder, "runs"))
        Path(folder, "runs").mkdir()
        for name in arguments.parts or PARTS:
            lines = []
            for line in PARTS[name](arena, arguments.quick, rounds):
                print(line, flush=True)
                lines.append(line)
            arena.forget()
            if arguments.write:
                shared.put(shared.PERFORMANCE, name, "\n".join([*lines, "", machine]))


if __name__ == "__main__":
    main()
