"""Fixtures shared by unit tests."""

from __future__ import annotations

import gc
import warnings
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def collect_tensorboardx_writers() -> Iterator[None]:
    """Collect unclosed tensorboardX writers after a test, so that no later test gets their warnings."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
