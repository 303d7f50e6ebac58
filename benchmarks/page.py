"""The pages in `docs/` whose tables the benchmarks write."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["put"]


def put(page: Path, name: str, text: str) -> None:
    """Put `text` between the two markers of the benchmark called `name`, in place of what stands there."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, rest = page.read_text().split(begin)
    _, tail = rest.split(end)
    page.write_text(f"{head}{begin}\n\n{text.rstrip()}\n\n{end}{tail}")
