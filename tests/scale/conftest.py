"""Settings for all tests with many processes, hosts and runs."""

from __future__ import annotations

import contextlib
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
FOLDER = "tests/scale"


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Skip this lane unless it is selected by `-m scale` or by its folder: it starts clusters."""
    asked = "scale" in config.getoption("markexpr") or any(FOLDER in argument for argument in config.args)
    return None if asked else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.scale)


@pytest.fixture
def mark() -> Iterator[dict[str, str]]:
    """Return an environment variable for a test's processes; processes that still have it after the test are killed.

    Launchers and clusters start processes in new sessions, which outlive their parents.
    """
    name, value = "SCALE_TEST", uuid.uuid4().hex
    yield {name: value}
    left = [process for process in psutil.process_iter() if _has(process, name, value)]
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=10)


def _has(process: psutil.Process, name: str, value: str) -> bool:
    try:
        return process.environ().get(name) == value
    except psutil.Error:
        return False
