"""What several unit tests get."""

from __future__ import annotations

import gc
import warnings
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def what_tensorboardx_leaves_open_is_closed_here() -> Iterator[None]:
    """Collect its writers at the end of a test, so that their warnings are not taken for those of another one."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
