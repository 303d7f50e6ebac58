"""`hf-summary-writer get`: print scalars of a logdir, repo or bucket."""

from __future__ import annotations

import csv
import json
import math
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import click

from hf_summary_writer.cli.options import create_folder, new_folder, place_options, refuse, source_of
from hf_summary_writer.cli.progress import download_progress
from hf_summary_writer.cli.signals import exit_on_signals
from hf_summary_writer.cli.terminal import log_to_stderr, write_lines
from hf_summary_writer.hub import client_of, failed_read
from hf_summary_writer.notices import printable
from hf_summary_writer.reading import no_folder, read_folder, read_remote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from hf_summary_writer.config import PushConfig
    from hf_summary_writer.events import Scalars

_COLUMNS = ("run", "tag", "step", "value", "wall_time")
_OVERVIEW = ("run", "tag", "values", "last_step", "last_value", "last_wall_time")

Row = tuple[Any, ...]


@click.command(short_help="Print the scalars of a logdir, repo or bucket.")
@click.argument("source", metavar="REPO_OR_LOGDIR")
@click.argument("tags", nargs=-1, metavar="[TAG]...")
@click.option("--run", "runs", multiple=True, metavar="PATTERN", help="Only runs that match. Repeatable.")
@place_options
@click.option(
    "--folder",
    type=new_folder,
    help="Keep downloaded event files in this folder; the next call downloads only new data.",
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON, one object per line.")
@click.option("--csv", "as_csv", is_flag=True, help="Write CSV with a header.")
def get(
    source: str,
    tags: tuple[str, ...],
    runs: tuple[str, ...],
    folder: Path | None,
    as_json: bool,
    as_csv: bool,
    **options: Any,
) -> None:
    """Print the scalars TAG of all runs in REPO_OR_LOGDIR; without TAG, list the tags with their last values.

    REPO_OR_LOGDIR is a folder on this machine, a repo, or an hf:// URI such as hf://buckets/user/logs/run. TAG may be a
    pattern such as 'loss/*'. Runs have the names that TensorBoard gives them. Of a repo or bucket, only the event files
    of the chosen runs are downloaded. In JSON, numbers that are not finite are the texts NaN, Infinity and -Infinity.
    Exits with 1 if a run or tag does not exist.
    """
    log_to_stderr()
    if as_json and as_csv:
        raise click.UsageError("choose one of --json and --csv")
    place = source_of(source, options, click.ClickException)
    if isinstance(place, Path):
        refuse("a folder", {"--folder": folder})
    elif folder is not None:
        create_folder(folder)
    try:
        if isinstance(place, Path):
            found = read_folder(place, tags or None, runs or None)
        else:
            found = _downloaded(source, place, tags, runs, folder)
    except Exception as error:  # noqa: BLE001 - the client raises many kinds, and all end here
        raise click.ClickException(printable(_reason(source, place, error))) from None
    columns, rows = (_COLUMNS, _values(found)) if tags else (_OVERVIEW, _overview(found))
    lines: Iterator[str]
    if as_json:
        lines = (json.dumps(dict(zip(columns, map(_in_json, row), strict=True))) + "\n" for row in rows)
    else:
        lines = (_csv if as_csv else _table)(columns, rows)
    write_lines(lines)


def _downloaded(
    source: str, config: PushConfig, tags: tuple[str, ...], runs: tuple[str, ...], folder: Path | None
) -> dict[str, dict[str, Scalars]]:
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    disable_progress_bars()  # the client's own
    with exit_on_signals(), download_progress(config.repo_id) as progress:
        return read_remote(
            source, config, client_of(config.endpoint, config.token), tags or None, runs or None, folder, progress
        )


def _reason(source: str, place: Path | PushConfig, error: Exception) -> str:
    # Those of the client are about a field of an answer, or a file such as that of SSL_CERT_FILE.
    is_of_client = isinstance(error, KeyError) or getattr(error, "errno", None) is not None
    is_ours = isinstance(error, LookupError | FileNotFoundError) and not is_of_client
    if isinstance(place, Path) or is_ours:
        return str(error)
    return no_folder(source, place) + failed_read(place, error)


def _values(runs: dict[str, dict[str, Scalars]]) -> Iterator[Row]:
    for run, tags in runs.items():
        for tag, scalars in tags.items():
            columns = (column.tolist() for column in scalars)
            yield from ((run, tag, *numbers) for numbers in zip(*columns, strict=True))


def _overview(runs: dict[str, dict[str, Scalars]]) -> Iterator[Row]:
    for run, tags in runs.items():
        for tag, scalars in tags.items():
            yield run, tag, len(scalars.steps), *(column[-1].item() for column in scalars)


def _in_json(value: Any) -> Any:
    # As in the JSON of protocol buffers: JSON itself has no such numbers.
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _csv(columns: tuple[str, ...], rows: Iterable[Row]) -> Iterator[str]:
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    clean: Callable[[str], str] = printable if is_terminal else str
    # Returns the return value of `write`.
    writer: Any = csv.writer(SimpleNamespace(write=str), lineterminator="\n")
    yield writer.writerow(columns)
    for run, tag, *numbers in rows:
        yield writer.writerow((clean(run), clean(tag), *numbers))


def _table(columns: tuple[str, ...], rows: Iterable[Row]) -> Iterator[str]:
    """Yield the lines of a table: names to the left, numbers to the right, the time as local time."""
    shown = [(*columns[:-1], "time")]
    shown += [(printable(run), printable(tag), *map(_short, numbers), _local(at)) for run, tag, *numbers, at in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for run, tag, *numbers, at in shown:
        cells = (f"{number:>{width}}" for number, width in zip(numbers, widths[2:], strict=False))
        yield "  ".join((f"{run:<{widths[0]}}", f"{tag:<{widths[1]}}", *cells, f"{at}\n"))


def _short(number: Any) -> str:
    if isinstance(number, str):
        return number.replace("_", " ")
    return f"{number:.6g}" if isinstance(number, float) else str(number)


def _local(moment: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))
    except (OverflowError, OSError, ValueError):  # not finite, or of no year
        return str(moment)
