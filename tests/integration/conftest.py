"""Settings for all tests that run a real framework."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Skip this lane unless it is selected by `-m integration` or by its folder: frameworks import slowly."""
    asked = "integration" in config.getoption("markexpr") or any("integration" in argument for argument in config.args)
    return None if asked else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.integration)
            # Frameworks cause warnings in their own and each other's code.
            item.add_marker(pytest.mark.filterwarnings("default"))
