"""Helpers for several benchmarks: the page with their tables, a Hub on this machine, common arguments."""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PERFORMANCE", "SCALARS_PER_STEP", "arguments", "local_hub", "put"]

PERFORMANCE = Path(__file__).parent.parent / "docs" / "performance.md"

SCALARS_PER_STEP = 5

"""Scalars that a training loop logs, where logging is compared with not logging."""


def put(page: Path, name: str, text: str) -> None:
    """Put `text` between the two markers of the benchmark called `name`, replacing the old text."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, rest = page.read_text().split(begin)
    _, tail = rest.split(end)
    page.write_text(f"{head}{begin}\n\n{text.rstrip()}\n\n{end}{tail}")


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options `--rounds` and `--write`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    return parser


@contextlib.contextmanager
def local_hub() -> Iterator[Any]:
    """Yield a Hub on this machine and point huggingface_hub to it; `None` if its packages are not installed."""
    try:
        from hf_summary_writer.localhub import LocalHub
    except ImportError as error:
        print(f"left out: what needs a local Hub ({error})")
        yield None
        return
    with tempfile.TemporaryDirectory() as root, LocalHub(root, any_namespace=True) as hub:
        os.environ["HF_ENDPOINT"] = hub.endpoint
        os.environ["HF_TOKEN"] = hub.token
        os.environ["HF_SUMMARY_WRITER_QUIET"] = "1"
        yield hub
