"""Show which modules of the package one call enters, and how often: `python scripts/trace_push.py [--list]`.

An entry is a call from one module of the package into another. `--list` prints each entry of the push in order,
indented by the depth of its call. Needs the extra `localhub`.
"""

from __future__ import annotations

import os

os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import sys
import tempfile
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import HfApi

import hf_summary_writer
from hf_summary_writer import HFSummaryWriter
from hf_summary_writer.localhub import LocalHub

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGE = f"{Path(hf_summary_writer.__file__).parent}{os.sep}"
PUSH = "hf-summary-writer-push"
SECONDS = 60.0


@dataclass
class Trace:
    """The trace of one thread: its calls, the modules that it entered, and each entry in order."""

    calls: int = 0
    modules: set[str] = field(default_factory=set)
    entries: list[tuple[int, str]] = field(default_factory=list)
    stack: list[str] = field(default_factory=list)
    current: str = ""

    def call(self, module: str, name: str) -> None:
        self.calls += 1
        self.modules.add(module)
        self.stack.append(module)
        if module != self.current:
            self.entries.append((len(self.stack), f"{module}: {name}"))
            self.current = module

    def leave(self) -> None:
        if self.stack:
            self.stack.pop()
        self.current = self.stack[-1] if self.stack else ""


def traced(call: Callable[[], object]) -> dict[str, Trace]:
    """Return the trace of each thread while `call` ran."""
    traces: dict[str, Trace] = defaultdict(Trace)

    def profile(frame: Any, event: str, _: object) -> None:
        file = frame.f_code.co_filename
        if event in {"call", "return"} and on and file.startswith(PACKAGE) and "localhub" not in file:
            trace = traces[threading.current_thread().name]
            if event == "call":
                module = file[len(PACKAGE) :].removesuffix(".py")
                trace.call(module, getattr(frame.f_code, "co_qualname", frame.f_code.co_name))
            else:
                trace.leave()

    on = True
    profilers.append(profile)
    try:
        call()
    finally:
        on = False
        profilers.remove(profile)
    return traces


profilers: list[Any] = []


def dispatch(frame: Any, event: str, argument: object) -> None:
    for profile in profilers:
        profile(frame, event, argument)


def main() -> None:
    threading.setprofile(dispatch)  # before the threads of the writer start
    sys.setprofile(dispatch)
    with tempfile.TemporaryDirectory() as folder, LocalHub(Path(folder, "hub")) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        writer = HFSummaryWriter("traced", logdir=str(Path(folder, "runs", "a")), commit_every=60, hf_api=api)
        writer.add_scalar("loss", 1.0, 0)
        writer.scheduler.trigger().result(SECONDS)
        settled = threading.Event()
        settled.wait(1.0)  # a push continues shortly after its future is resolved
        writer.add_scalar("loss", 0.9, 0)  # the first one after a push registers the queue again
        traces = {
            "add_scalar": traced(lambda: writer.add_scalar("loss", 0.5, 1)),
            "trigger": traced(lambda: (writer.scheduler.trigger().result(SECONDS), settled.wait(0.5))),
        }
        sys.setprofile(None)
        writer.close()
    print("| call | thread | modules | entries | calls |\n| --- | --- | ---: | ---: | ---: |")
    for name, threads in traces.items():
        for thread, trace in threads.items():
            print(f"| `{name}` | {thread} | {len(trace.modules)} | {len(trace.entries)} | {trace.calls} |")
    if "--list" in sys.argv[1:]:
        for depth, entry in traces["trigger"][PUSH].entries:
            print("  " * depth + entry)


if __name__ == "__main__":
    main()
