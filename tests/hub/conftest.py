"""Fixtures for the tests of the local Hub."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from huggingface_hub import HfApi


@pytest.fixture
def repo(api: HfApi, repo_id: str) -> str:
    """Create an empty repo and return its id."""
    api.create_repo(repo_id)
    return repo_id
