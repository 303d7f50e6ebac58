"""Measure the overhead of logging in a training loop: tensorboardX, torch, huggingface_hub, wandb, trackio and ours.

    python benchmarks/logging.py            measure and print
    python benchmarks/logging.py --write    also put the tables into docs/performance.md

Peers take turns in every round, so that a busy machine is unfair to all alike; figures are medians over the rounds.
A loop that logs is compared with the same loop without logging directly before and after it, in a process of the peer's
own, since some leave threads at work behind. Peers that are not installed are left out, and named.
"""

from __future__ import annotations

import sys

# The script's own folder goes to the end: a file in it is named as a module of Python's own.
sys.path.append(sys.path.pop(0))

import argparse
import gc
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


OURS, THEIRS = "hf_summary_writer", "tensorboardX"
CALLS = 20_000
LOOP_STEPS = 1000
LOOP_PAIRS = 7


@dataclass
class Peer:
    """A logging library: functions that open its writer, log values and close it."""

    name: str
    open: Callable[[str], Any]
    close: Callable[[Any], None] = lambda writer: writer.close()
    scalar: Callable[[Any, str, Any, int], None] | None = None
    kinds: frozenset[str] = frozenset({"float", "int", "0-d NumPy", "image 3x256x256", "histogram of 1e6"})

    def log(self, writer: Any) -> Callable[[str, Any, int], None]:
        if self.scalar is None:
            bound: Callable[[str, Any, int], None] = writer.add_scalar
            return bound
        scalar = self.scalar
        return lambda tag, value, step: scalar(writer, tag, value, step)


@dataclass
class Series:
    """The measurements of one peer and one kind of value, a list entry for each round; times in microseconds."""

    mean: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    max: list[float] = field(default_factory=list)
    with_close: list[float] = field(default_factory=list)
    bytes: list[float] = field(default_factory=list)


@dataclass
class Imported:
    """How long an import took, in milliseconds: as it is, and with the garbage collector off."""

    plain: list[float] = field(default_factory=list)
    uncollected: list[float] = field(default_factory=list)


def peers(hub: Any) -> Iterator[Peer]:
    import tensorboardX

    yield Peer(THEIRS, tensorboardX.SummaryWriter)
    if importlib.util.find_spec("torch"):
        from torch.utils.tensorboard import SummaryWriter

        yield Peer("torch", SummaryWriter)
    else:
        print("left out: torch is not installed")
    if hub is None:
        print("left out: huggingface_hub's HFSummaryWriter, there is no local Hub to push to")
    else:
        from huggingface_hub import HFSummaryWriter

        yield Peer("huggingface_hub", lambda logdir: HFSummaryWriter("user/benchmark", logdir=logdir, commit_every=60))
    if importlib.util.find_spec("wandb"):
        import wandb

        yield Peer(
            "wandb (offline)",
            lambda logdir: wandb.init(dir=logdir, mode="offline", settings=wandb.Settings(silent=True)),
            lambda run: run.finish(),
            lambda run, tag, value, step: run.log({tag: value}, step=step),
            frozenset({"float", "int", "0-d NumPy"}),
        )
    else:
        print("left out: wandb is not installed")
    if importlib.util.find_spec("trackio"):
        import trackio

        yield Peer(
            "trackio",
            lambda logdir: trackio.init(project=Path(logdir).name, embed=False),
            lambda run: run.finish(),
            lambda run, tag, value, step: run.log({tag: value}, step=step),
            frozenset({"float", "int", "0-d NumPy"}),
        )
    else:
        print("left out: trackio is not installed")
    from hf_summary_writer.events.writer import EventWriter

    yield Peer(OURS, EventWriter)


def kinds() -> dict[str, tuple[str, int, Callable[[int], Any]]]:
    rng = np.random.default_rng(0)
    image = rng.random((3, 256, 256), dtype=np.float32)
    numbers = rng.standard_normal(1_000_000)
    return {
        "float": ("add_scalar", CALLS, lambda n: n * 0.1),
        "int": ("add_scalar", CALLS, lambda n: n),
        "0-d NumPy": ("add_scalar", CALLS, np.float32),
        "image 3x256x256": ("add_image", 20, lambda _: image),
        "histogram of 1e6": ("add_histogram", 10, lambda _: numbers),
    }


def measure(peer: Peer, method: str, values: list[Any], series: Series) -> None:
    """Time each call, and all of them with the end."""
    # One level down, so that `runs` and the like of a peer do not collide.
    with tempfile.TemporaryDirectory() as folder:
        logdir = str(Path(folder) / "run")
        writer = peer.open(logdir)
        log = peer.log(writer) if method == "add_scalar" else getattr(writer, method)
        clock = time.perf_counter_ns
        taken = [0] * len(values)
        gc.collect()
        began = clock()
        for step, value in enumerate(values):
            before = clock()
            log("train/loss", value, step)
            taken[step] = clock() - before
            if method != "add_scalar":
                # Heavy values come now and then: the next one when the one before it is done.
                writer.flush()
        peer.close(writer)
        total = clock() - began
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    taken.sort()
    series.mean.append(statistics.fmean(taken) / 1000)
    series.p50.append(taken[len(taken) // 2] / 1000)
    series.p99.append(taken[len(taken) * 99 // 100] / 1000)
    series.max.append(taken[-1] / 1000)
    series.with_close.append(total / 1000 / len(values))
    series.bytes.append(size / len(values))


def measure_long_enough(peer: Peer, method: str, values: list[Any], series: Series) -> None:
    """Measure a peer for a second or so, at most nine times, so that one pause of the machine does not decide."""
    repeats = Series()
    deadline = time.perf_counter() + 1
    while len(repeats.mean) < 9 and time.perf_counter() < deadline:
        measure(peer, method, values, repeats)
    for figure, found in vars(repeats).items():
        getattr(series, figure).append(statistics.median(found))


def training_step() -> Callable[[], Any]:
    """Return one step of a small model: torch if it is there, NumPy otherwise."""
    if importlib.util.find_spec("torch"):
        import torch

        torch.manual_seed(0)
        torch.set_num_threads(1)
        model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
        optimizer = torch.optim.Adam(model.parameters())
        inputs, targets = torch.randn(64, 64), torch.randint(0, 10, (64,))

        def step() -> float:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
            return float(loss.detach())

        return step
    weights = np.random.default_rng(0).random((256, 256))
    return lambda: float(np.tanh(weights @ weights / 256).sum())


def loop(peer: Peer | None, step: Callable[[], Any]) -> float:
    """Return the microseconds a step takes, with five scalars logged in each or with none."""
    with tempfile.TemporaryDirectory() as folder:
        writer = peer.open(str(Path(folder) / "run")) if peer else None
        log = peer.log(writer) if peer else None
        began = time.perf_counter()
        for number in range(LOOP_STEPS):
            value = step()
            if log:
                for n in range(shared.SCALARS_PER_STEP):
                    log(f"scalar{n}", value, number)
        taken = (time.perf_counter() - began) / LOOP_STEPS * 1e6
        if peer:
            peer.close(writer)
    return taken


def loop_pairs(peer: Peer) -> list[tuple[float, float]]:
    """Return the microseconds of a step without and with logging, measured in turns."""
    step = training_step()
    loop(None, step)
    loop(peer, step)
    bare, pairs = loop(None, step), []
    for _ in range(LOOP_PAIRS):
        logging = loop(peer, step)
        before, bare = bare, loop(None, step)
        pairs.append(((before + bare) / 2, logging))
    return pairs


def imports(rounds: int) -> dict[str, Imported]:
    """Return how long fresh interpreters take for each import, in turns."""
    statements = {
        THEIRS: "import tensorboardX",
        f"{OURS}.events": "import hf_summary_writer.events.writer",
        f"{OURS}.HFSummaryWriter": "from hf_summary_writer import HFSummaryWriter",
    }
    results: dict[str, Imported] = defaultdict(Imported)
    with tempfile.TemporaryDirectory() as folder:
        # With cached bytecode, as after an installation by pip, even if the environment disables the cache.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for number in range(rounds + 1):
            for name, statement in statements.items():
                for figure, before in (("plain", ""), ("uncollected", "import gc; gc.disable(); ")):
                    code = f"{before}import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
                    taken = float(last_line([sys.executable, "-c", code], environment))
                    if number:  # the first one compiles
                        getattr(results[name], figure).append(taken * 1000)
    return results


def last_line(command: list[str], environment: dict[str, str] | None = None) -> str:
    ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return ended.stdout.splitlines()[-1]


def tables(
    results: dict[str, dict[str, Series]], loops: dict[str, list[tuple[float, float]]], imported: dict[str, Imported]
) -> str:
    """Return all tables in Markdown."""
    median = statistics.median
    lines = [
        (
            f"{platform.machine()}, {os.cpu_count()} cores with a load of {os.getloadavg()[1]:.1f}, CPython"
            f" {platform.python_version()}, microseconds per call."
        ),
        "",
    ]
    for kind, by_peer in results.items():
        lines += [
            f"**{kind}**",
            "",
            "| | mean | p50 | p99 | max | with `close()` | calls/s | bytes/event | speed-up |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        ]
        ours = median(by_peer[OURS].mean)
        for name, series in by_peer.items():
            figures = [series.mean, series.p50, series.p99, series.max, series.with_close]
            cells = [
                f"{median(figure):,.2f}" if median(figure) < 100 else f"{median(figure):,.0f}" for figure in figures
            ]
            cells += [f"{1e6 / median(series.with_close):,.0f}", f"{median(series.bytes):,.0f}"]
            lines.append(f"| {name} | {' | '.join(cells)} | {median(series.mean) / ours:,.1f} |")
        lines.append("")
    lines += [
        f"**A loop with {shared.SCALARS_PER_STEP} scalars a step**",
        "",
        "| | µs per step | without logging | slowdown |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, pairs in loops.items():
        bare, logging = (median(pair[n] for pair in pairs) for n in (0, 1))
        factor = median(logging / bare for bare, logging in pairs)
        lines.append(f"| {name} | {logging:,.0f} | {bare:,.0f} | {factor:.3f} |")
    lines += [
        "",
        "**Import**, in ms",
        "",
        "| | | in addition to tensorboardX | without the garbage collector | in addition to tensorboardX |",
    ]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    for name, series in imported.items():
        cells = []
        for figure in ("plain", "uncollected"):
            taken, theirs = getattr(series, figure), getattr(imported[THEIRS], figure)
            cells += [f"{median(taken):,.0f}", f"{median(taken) - median(theirs):,.1f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def ratios(results: dict[str, dict[str, Series]]) -> str:
    """Return the speed-ups over tensorboardX, for the figures with a documented target."""
    lines = []
    for kind, by_peer in results.items():
        ours, theirs = by_peer[OURS], by_peer[THEIRS]
        shares = {
            figure: statistics.median(getattr(theirs, figure)) / statistics.median(getattr(ours, figure))
            for figure in ("mean", "p99", "with_close")
        }
        lines.append(f"{kind}: " + ", ".join(f"{figure} 1/{share:.1f}" for figure, share in shares.items()))
    return "\n".join(lines)


def main() -> None:
    parser = shared.arguments(__doc__)
    parser.add_argument("--import-rounds", type=int, default=15)
    parser.add_argument("--loop", metavar="PEER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.loop:
        hub = os.environ.get("HF_ENDPOINT")
        [peer] = (peer for peer in peers(hub) if peer.name == arguments.loop)
        print(json.dumps(loop_pairs(peer)))
        sys.stdout.flush()
        os._exit(0)  # the time of the exit is measured elsewhere
    results: dict[str, dict[str, Series]] = {kind: defaultdict(Series) for kind in kinds()}
    loops: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with shared.local_hub() as hub:
        present = list(peers(hub))
        for number in range(arguments.rounds):
            print(f"round {number + 1} of {arguments.rounds}", flush=True)
            for kind, (method, count, make) in kinds().items():
                values = [make(n) for n in range(count)]
                for peer in present:
                    if kind in peer.kinds:
                        measure_long_enough(peer, method, values, results[kind][peer.name])
            for peer in present:
                pairs = json.loads(last_line([sys.executable, "-W", "ignore", __file__, "--loop", peer.name]))
                loops[peer.name].extend(map(tuple, pairs))
    imported = imports(arguments.import_rounds)
    text = tables(results, loops, imported)
    print(text)
    print(ratios(results))
    if arguments.write:
        shared.put(shared.PERFORMANCE, "benchmark", text)


if __name__ == "__main__":
    main()
