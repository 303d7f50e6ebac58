"""Measure the overhead of logging GPU tensors in a training loop: torch, tensorboardX and this project.

    python benchmarks/gpu.py            measure, print, and say whether the targets are met
    python benchmarks/gpu.py --write    also put the tables into docs/performance.md

Needs torch, tensorboardX and this package; with the extra `localhub` also measures during a push, after all else. Takes
three minutes. A loop that logs is compared with the same loop without logging directly before and after it; figures are
medians over the rounds.
"""

from __future__ import annotations

import sys

# The script's own folder goes to the end: a file in it is named as a module of Python's own.
sys.path.append(sys.path.pop(0))

import contextlib
import gc
import os
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import shared
import tensorboardX
import torch

from hf_summary_writer.events import EventWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OURS, PUSHING = "hf_summary_writer", "hf_summary_writer, during a push"
MOST_CALLER_US = 25.0
MOST_MEDIA_MS = 0.3


@dataclass
class Loop:
    name: str
    make: Callable[[], Callable[[], Any]]
    most_ratio: float


@dataclass
class Series:
    """The measurements of one writer in one loop, an entry for each round."""

    ratio: list[float] = field(default_factory=list)
    mean_us: list[float] = field(default_factory=list)
    p50_us: list[float] = field(default_factory=list)


def training(layers: int, width: int, batch: int) -> Callable[[], Any]:
    """Return a training step that returns its loss, which stays on the GPU."""
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    blocks = [block for _ in range(layers) for block in (torch.nn.Linear(width, width), torch.nn.ReLU())]
    model = torch.nn.Sequential(*blocks).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, foreach=True)
    inputs, targets = torch.randn(batch, width, device="cuda"), torch.randn(batch, width, device="cuda")

    def step() -> Any:
        optimizer.zero_grad(set_to_none=False)
        loss = torch.nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def replayed(layers: int, width: int, batch: int) -> Callable[[], Any]:
    """Return the same step as a CUDA graph."""
    step = training(layers, width, batch)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()

    def replay() -> Any:
        graph.replay()
        return loss

    # The graph uses memory of the model, which ends with `step`.
    replay.step = step  # type: ignore[attr-defined]
    return replay


LOOPS = [
    Loop("4 x 512, batch 64 (host-bound)", lambda: training(4, 512, 64), 1.05),
    Loop("12 x 1,024, batch 256", lambda: training(12, 1024, 256), 1.02),
    Loop("16 x 4,096, batch 8,192 (GPU-bound)", lambda: training(16, 4096, 8192), 1.02),
    Loop("12 x 1,024 as a CUDA graph", lambda: replayed(12, 1024, 256), 1.02),
]


def run(step: Callable[[], Any], steps: int, writer: Any) -> tuple[float, list[int]]:
    """Return the seconds of a step, and the nanoseconds for which each call blocked the caller."""
    clock = time.perf_counter_ns
    taken: list[int] = []
    torch.cuda.synchronize()
    gc.collect()
    began = time.perf_counter()
    for number in range(steps):
        loss = step()
        if writer is not None:
            for n in range(shared.SCALARS_PER_STEP):
                before = clock()
                writer.add_scalar(f"train/scalar{n}", loss, number)
                taken.append(clock() - before)
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / steps, taken


def measure_loop(loop: Loop, writers: dict[str, Any], rounds: int, seconds: float) -> dict[str, Series]:
    step = loop.make()
    run(step, 20, None)
    per_step, _ = run(step, 20, None)
    steps = max(20, int(seconds / per_step))
    results: dict[str, Series] = defaultdict(Series)
    for make in writers.values():  # warm
        with tempfile.TemporaryDirectory() as folder, make(str(Path(folder) / "run")) as writer:
            run(step, 10, writer)
    for _ in range(rounds):
        bare, _ = run(step, steps, None)
        for name, make in writers.items():
            with tempfile.TemporaryDirectory() as folder, make(str(Path(folder) / "run")) as writer:
                logging, taken = run(step, steps, writer)
            before, (bare, _) = bare, run(step, steps, None)
            series = results[name]
            series.ratio.append(logging / ((before + bare) / 2))
            series.mean_us.append(statistics.fmean(taken) / 1000)
            series.p50_us.append(statistics.median(taken) / 1000)
    return results


def measure_media(writers: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return the milliseconds for which a call blocks the caller while the GPU is otherwise idle."""
    image = torch.rand(3, 256, 256, device="cuda")
    numbers = torch.randn(1_000_000, device="cuda")
    found: dict[str, dict[str, float]] = {}
    for name, make in writers.items():
        with tempfile.TemporaryDirectory() as folder, make(str(Path(folder) / "run")) as writer:
            for kind, method, value in (
                ("image 3x256x256", writer.add_image, image),
                ("histogram of 1e6", writer.add_histogram, numbers),
            ):
                taken = []
                for number in range(13):
                    torch.cuda.synchronize()
                    before = time.perf_counter()
                    method(kind, value, number)
                    taken.append(time.perf_counter() - before)
                    writer.flush()
                found.setdefault(kind, {})[name] = statistics.median(taken[3:]) * 1000
    return found


@contextlib.contextmanager
def pushing(logdir: str) -> Iterator[Any]:
    """Yield a writer whose logs are being pushed all the time."""
    from hf_summary_writer import HFSummaryWriter

    ended = threading.Event()
    with HFSummaryWriter("benchmark", logdir=logdir, commit_every=60) as writer:

        def push() -> None:
            while not ended.is_set():
                writer.scheduler.trigger().result()

        thread = threading.Thread(target=push)
        thread.start()
        yield writer
        ended.set()
        thread.join()


def card() -> str:
    properties = torch.cuda.get_device_properties(0)
    return (
        f"{properties.name}, {properties.total_memory >> 30} GiB, PyTorch {torch.__version__}, {os.cpu_count()} cores"
        f" with a load of {os.getloadavg()[0]:.1f}, CPython {sys.version.split()[0]}."
    )


def copy_us() -> float:
    """Return the microseconds for which a copy of one number on the otherwise idle device blocks the caller."""
    number, place = torch.rand((), device="cuda"), torch.empty((), dtype=torch.float64, device="cuda")
    taken = []
    for _ in range(20):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(100):
            place.copy_(number)
        taken.append((time.perf_counter() - began) * 1e4)
    return statistics.median(taken)


def cell(series: Series) -> str:
    ratio, mean_us, p50_us = map(statistics.median, (series.ratio, series.mean_us, series.p50_us))
    return f"{ratio:.3f}; {mean_us:,.0f} (p50 {p50_us:,.0f})"


def tables(loops: dict[str, dict[str, Series]], media: dict[str, dict[str, float]]) -> str:
    lines = [
        card(),
        "",
        (
            "Time of a step with five scalars / without; microseconds that `add_scalar` keeps the caller, of which"
            f" {copy_us():.1f} are the copy on the device."
        ),
    ]
    names = list(next(iter(loops.values())))
    lines += ["", f"| loop | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    for loop, results in loops.items():
        lines.append(f"| {loop} | {' | '.join(map(cell, results.values()))} |")
    lines += ["", "Milliseconds that a call keeps the caller.", ""]
    names = list(next(iter(media.values())))
    lines += [f"| | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    for kind, results in media.items():
        lines.append(f"| {kind} | {' | '.join(f'{value:.3f}' for value in results.values())} |")
    return "\n".join(lines) + "\n"


def verdicts(loops: dict[str, dict[str, Series]], media: dict[str, dict[str, float]]) -> Iterator[str]:
    """Compare with the targets, in words."""
    for loop in LOOPS:
        series = loops[loop.name][OURS]
        for what, found, most in (
            ("step ratio", statistics.median(series.ratio), loop.most_ratio),
            ("caller's microseconds", statistics.median(series.mean_us), MOST_CALLER_US),
        ):
            yield f"{'met   ' if found <= most else 'MISSED'} {loop.name}: {what} {found:,.3f}, at most {most:g}"
    for kind, results in media.items():
        found = results[OURS]
        yield f"{'met   ' if found <= MOST_MEDIA_MS else 'MISSED'} {kind}: {found:.3f} ms, at most {MOST_MEDIA_MS:g}"


def main() -> None:
    parser = shared.arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=0.8, help="how long each loop runs at a time")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("this machine has no GPU that PyTorch can use")
    began = time.monotonic()
    print(card(), flush=True)
    writers: dict[str, Any] = {"tensorboardX": tensorboardX.SummaryWriter, OURS: EventWriter}
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        print(f"left out: torch's own writer ({error})")
    else:
        writers = {"torch": SummaryWriter, **writers}
    media = measure_media(writers)
    loops: dict[str, dict[str, Series]] = defaultdict(dict)

    def measure(writers: dict[str, Any]) -> None:
        for loop in LOOPS:
            found = measure_loop(loop, writers, arguments.rounds, arguments.seconds)
            loops[loop.name].update(found)
            torch.cuda.empty_cache()
            cells = ", ".join(f"{name} {cell(series)}" for name, series in found.items())
            print(f"{time.monotonic() - began:.0f} s: {loop.name}: {cells}", flush=True)

    measure(writers)
    print(tables(loops, media))
    print("\n".join(verdicts(loops, media)), flush=True)
    with shared.local_hub() as hub:
        if hub is not None:
            measure({PUSHING: pushing})
    text = tables(loops, media)
    print(text)
    print(f"{time.monotonic() - began:.0f} s in all")
    if arguments.write:
        shared.put(shared.PERFORMANCE, "gpu benchmark", text)


if __name__ == "__main__":
    main()
