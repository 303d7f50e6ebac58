"""Simulate a day of many runs with tests/simulation.py, which uses the real schedule, turns and commit budget.

python benchmarks/scale.py            simulate all and print the tables; takes some minutes
python benchmarks/scale.py --write    also put them into docs/scale.md, and the plots beside it
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parent.parent
# The script's own folder goes to the end: a file in it is named as a module of Python's own.
sys.path = [str(ROOT / "tests"), str(ROOT / "src"), *sys.path[1:], sys.path[0]]

import shared

from simulation import Layout, Result, most_in_an_hour, simulate

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = ROOT / "docs" / "scale.md"
OWN, ONE, WATCHED = "one process each", "one process", "a sync daemon"
THOUSAND = {"limit": 1000, "known": 937.0}
COLUMNS = (
    "commits per hour, average",
    "in the busiest hour",
    "429s per day",
    "requests per run and hour",
    "age of the data on the Hub: median",
    "p99",
    "worst run",
)


@cache
def day(layout: Layout) -> Result:
    began = time.perf_counter()
    result = simulate(layout)
    print(f"{time.perf_counter() - began:6.1f} s  {layout}", file=sys.stderr, flush=True)
    return result


def layout_of(name: str, runs: int, **options: Any) -> Layout:
    shape: dict[str, Any] = {OWN: {}, ONE: {"processes": 1}, WATCHED: {"processes": 1, "one_folder": True}}[name]
    return Layout(runs, **shape, **options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the tables and plots into docs")
    arguments = parser.parse_args()
    lines = list(tables())
    print("\n".join(lines))
    if arguments.write:
        shared.put(PAGE, "scale", "\n".join(lines))
        plot()


def tables() -> Iterator[str]:
    yield "**128 commits per hour, every 5 minutes**\n"
    yield from table([(name, runs, {}) for name in (OWN, ONE, WATCHED) for runs in sizes(name)])
    yield "\n**1,000 commits per hour, `HF_SUMMARY_WRITER_COMMITS_PER_HOUR=937`, every 5 minutes**\n"
    yield from table([(name, runs, THOUSAND) for name in (OWN, WATCHED) for runs in sizes_of_thousand(name)])
    yield "\n**128 commits per hour, one process each, other intervals**\n"
    cases = [(OWN, runs, {"interval": minutes * 60.0}) for runs in (10, 64) for minutes in (1, 15, 60)]
    yield from table(cases, lambda case: f", every {case[2]['interval'] / 60:.0f} min")
    yield "\n**128 commits per hour, several machines with 8 runs each, one process per run**\n"
    yield from table([(OWN, 8 * count, {"machines": count}) for count in MACHINES], of_machines)
    yield "\n**The same with a sync daemon on each machine**\n"
    yield from table([(WATCHED, 8 * count, {"machines": count}) for count in (10, 16, 64)], of_machines)
    yield "\n**Runs of about an hour, each followed by another, one process per run**\n"
    yield row("runs at once", "ended per day", "left data for the next process", "commits in the busiest hour")
    yield "| --- | ---: | ---: | ---: |"
    for runs in (20, 64, 100, 200):
        result = day(layout_of(OWN, runs, run_seconds=3600.0))
        yield row(runs, f"{result.last_pushes:,}", f"{result.left:,}", most_in_an_hour(result.accepted))


MACHINES = (2, 4, 16, 64)


def sizes(name: str) -> tuple[int, ...]:
    return (10, 20, 64, 300) if name == ONE else (10, 20, 64, 300, 1000, 10_000)


def sizes_of_thousand(name: str) -> tuple[int, ...]:
    return (64, 200) if name == OWN else (64, 200, 1000, 10_000)  # more of their own take long to simulate


def of_machines(case: tuple[str, int, dict[str, Any]]) -> str:
    return f" on {case[2]['machines']} machines"


def table(cases: list[tuple[str, int, dict[str, Any]]], more: Any = lambda _: "") -> Iterator[str]:
    yield row("runs", *COLUMNS)
    yield "| --- |" + " ---: |" * len(COLUMNS)
    for case in cases:
        name, runs, options = case
        result = day(layout_of(name, runs, **options))
        hours = result.layout.hours
        yield row(
            f"{runs:,}, {name}{more(case)}",
            f"{len(result.accepted) / hours:.0f}",
            most_in_an_hour(result.accepted),
            f"{len(result.refused):,}",
            f"{result.requests / runs / hours:.1f}",
            *(minutes(seconds) for seconds in (result.staleness(0.5), result.staleness(0.99), max(result.worst))),
        )


def minutes(seconds: float) -> str:
    if seconds >= 23.9 * 3600:
        return "not uploaded"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def row(*cells: object) -> str:
    return f"| {' | '.join(str(each) for each in cells)} |"


def plot() -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "scale", "svg.fonttype": "none", "font.size": 9, "axes.grid": True})
    plot_staleness()
    plot_machines()


def plot_staleness() -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
    for axis, limit, options in ((axes[0], "128", {}), (axes[1], "1,000", THOUSAND)):
        for name, color in ((OWN, "tab:orange"), (WATCHED, "tab:blue")):
            counts = sizes_of_thousand(name) if options else sizes(name)
            results = [day(layout_of(name, runs, **options)) for runs in counts]
            axis.plot(
                counts, [r.staleness(0.5) / 60 for r in results], color=color, marker=".", label=f"{name}: median"
            )
            axis.plot(counts, [max(r.worst) / 60 for r in results], ":", color=color, marker=".", label="worst run")
        axis.set(xscale="log", yscale="log", xlabel="runs", title=f"{limit} commits per hour")
    axes[0].set_ylabel("age of the data on the Hub in minutes")
    axes[0].legend()
    save(figure, "scale-staleness")


def plot_machines() -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
    for count in MACHINES:
        result = day(layout_of(OWN, 8 * count, machines=count))
        hours = range(24)
        axes[0].plot(hours, [sum(h <= t / 3600 < h + 1 for t in result.accepted) for h in hours], label=f"{count}")
        refused = [sum(h <= t / 3600 < h + 1 for t, _ in result.refused) / count for h in hours]
        axes[1].plot(hours, refused, label=f"{count} machines")
    axes[0].axhline(128, color="black", linestyle=":")
    axes[0].set(xlabel="hour", ylabel="commits", ylim=(0, 140), title="commits per hour, all machines")
    axes[1].set(xlabel="hour", ylabel="429s", title="429s per hour, each machine")
    axes[1].legend()
    save(figure, "scale-machines")


def save(figure: Any, name: str) -> None:
    path = PAGE.parent / f"{name}.svg"
    figure.savefig(path, metadata={"Date": None}, facecolor="white")
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")


if __name__ == "__main__":
    main()
