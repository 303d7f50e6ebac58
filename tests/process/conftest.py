"""Fixtures for a run's folder and a Hub behind a proxy that injects faults."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from faults.proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hub_process import HubProcess


@pytest.fixture
def logdir(tmp_path: Path) -> Path:
    return tmp_path / "run-1"


@pytest.fixture
def proxy(hub: HubProcess) -> Iterator[FaultProxy]:
    with FaultProxy(hub) as running:
        yield running
