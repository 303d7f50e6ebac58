"""HTML for training runs, with a small SVG chart for each scalar; the page needs no script."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from hf_summary_writer.localhub import html

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hf_summary_writer.localhub.runs.find import Run
    from hf_summary_writer.localhub.runs.state import RunState

_WIDTH, _HEIGHT = 240, 80
_CHARTS_PER_RUN = 24
_RUNS_WITH_CHARTS = 20
_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


def show_runs(runs: Sequence[Run], command: str, url_of: Callable[[str], str]) -> list[html.Markup]:
    """Return the part of a page that shows runs.

    Args:
        runs: the runs, newest first.
        command: opens them in TensorBoard.
        url_of: returns the path of the page of a folder.
    """
    if not runs:
        return []
    head = [
        html.tag("h2", f"{len(runs)} run{'s' if len(runs) > 1 else ''}"),
        html.tag("p", html.join(["Open in TensorBoard: ", html.tag("code", command)])),
    ]
    return [*head, *(_show_run(run, url_of, with_charts=at < _RUNS_WITH_CHARTS) for at, run in enumerate(runs))]


def _show_run(run: Run, url_of: Callable[[str], str], *, with_charts: bool) -> html.Markup:
    scalars = run.scalars
    facts = []
    if scalars.last_time:
        facts = [f"step {scalars.last_step:,}", f"last event {_ago(time.time() - scalars.last_time)}"]
    if run.left_out:
        facts.append(f"{run.left_out} of {run.files} files not shown: too large")
    tags = sorted(scalars.points)[: _CHARTS_PER_RUN if with_charts else 0]
    if rest := len(scalars.points) - len(tags):
        facts.append(f"{rest} scalar{'s' if rest > 1 else ''} not shown")
    head = [html.tag("h3", html.link(url_of(run.name), run.name or "/")), html.tag("p", " · ".join(facts))]
    title = html.join([*head, *(html.tag("p", _described(state)) for state in run.states)])
    charts = html.element("div", html.join(_chart(tag, scalars.points[tag]) for tag in tags), "charts")
    return html.element("section", html.join([title, charts]), "run")


def _described(state: RunState) -> str:
    since = _ago(time.time() - state.last_push)
    if state.is_overdue:
        return f"stopped {since}, no end was written: {state.about}"
    return f"{state.name}, last push {since}: {state.about}"


def _chart(tag: str, points: Sequence[tuple[int, float]]) -> html.Markup:
    (first, _), (last, value) = points[0], points[-1]
    low, high = min(y for _, y in points), max(y for _, y in points)
    width, height = max(last - first, 1), high - low
    places = " ".join(
        f"{(step - first) / width * _WIDTH:.1f},{(1 - ((y - low) / height if height else 0.5)) * _HEIGHT:.1f}"
        for step, y in points
    )
    label = f"{tag}: {_short(value)} at step {last:,}, between {_short(low)} and {_short(high)}"
    line = f'<polyline points="{places}" vector-effect="non-scaling-stroke"/>'
    if len(points) == 1:
        line = f'<circle cx="{_WIDTH / 2}" cy="{_HEIGHT / 2}" r="3"/>'
    drawing = html.Markup(
        f'<svg viewBox="-4 -4 {_WIDTH + 8} {_HEIGHT + 8}" preserveAspectRatio="none" role="img" '
        f'aria-label="{html.text(label)}"><title>{html.text(label)}</title>{line}</svg>'
    )
    caption = html.tag("figcaption", html.join([html.tag("b", tag), " ", _short(value)]))
    return html.tag("figure", html.join([caption, drawing]))


def _short(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def _ago(seconds: float) -> str:
    for length, unit in _UNITS:
        if seconds >= length:
            number = int(seconds // length)
            return f"{number} {unit}{'s' if number > 1 else ''} ago"
    return "just now"
