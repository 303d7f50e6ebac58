"""A pytest plugin for another project's test suite: it replaces classes by ours and marks expected differences.

The variable `SUITE` names the package. The Hub and the repo are those of the environment.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import pytest

from peers.suites import SUITES

if TYPE_CHECKING:
    from collections.abc import Callable

    from huggingface_hub import HfApi

suite = next(each for each in SUITES if each.package == os.environ["SUITE"])


def _summary_writer() -> type:
    for name in ("boto3", "moto"):
        # Test files with object storage tests import these packages.
        sys.modules.setdefault(name, MagicMock(mock_s3=lambda test: test))
    from hf_summary_writer import HFSummaryWriter

    class SummaryWriter(HFSummaryWriter):
        """A writer with the positional arguments of tensorboardX."""

        def __init__(
            self,
            logdir: Any = None,
            comment: str = "",
            purge_step: int | None = None,
            max_queue: int = 10,
            flush_secs: float = 120,
            filename_suffix: str = "",
            **kwargs: Any,
        ) -> None:
            named: dict[str, Any] = {"comment": comment, "purge_step": purge_step, "max_queue": max_queue}
            named |= {"flush_secs": flush_secs, "filename_suffix": filename_suffix}
            super().__init__(None, logdir, **named, **kwargs)

    return SummaryWriter


def _commit_scheduler() -> type:
    from hf_summary_writer import CommitScheduler

    return CommitScheduler


def _tracker() -> type:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    from hf_summary_writer.integrations.accelerate import HubTracker

    class Tracker(HubTracker):
        name = "tensorboard"
        requires_logging_directory = True

        def __init__(self, run_name: str, logging_dir: Any, **kwargs: Any) -> None:
            super().__init__(None, run_name, logging_dir, **kwargs)

    LOGGER_TYPE_TO_CLASS["tensorboard"] = Tracker
    return Tracker


def _output_format() -> type:
    from hf_summary_writer.integrations.stable_baselines3 import HubOutputFormat

    class Output(HubOutputFormat):
        def __init__(self, folder: Any) -> None:
            super().__init__(None, folder)

        def write(self, *arguments: Any, **named: Any) -> None:
            super().write(*arguments, **named)
            # Their tests read the files at once; our writer writes within half a second.
            self.writer.flush()

    return Output


def _logger() -> type:
    from hf_summary_writer.integrations.ignite import HubLogger

    class Logger(HubLogger):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(None, *args, **kwargs)

    return Logger


OURS: dict[str, Callable[[], type]] = {
    "tensorboardX": _summary_writer,
    "huggingface_hub": _commit_scheduler,
    "accelerate": _tracker,
    "stable-baselines3": _output_format,
    "pytorch-ignite": _logger,
}


def pytest_configure() -> None:
    """Replace the classes before any test module imports them."""
    for place in suite.classes:
        module, _, name = place.partition(":")
        found = importlib.import_module(module)
        ours = OURS[suite.package]()
        assert getattr(found, name) is not ours
        setattr(found, name, ours)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests with expected differences, and fail if a listed test does not exist."""
    unused = {**suite.differs, **suite.left_out}
    left_out = []
    for item in items:
        for end in [end for end in unused if item.nodeid.endswith(end)]:
            reason = unused.pop(end)
            if end in suite.left_out:
                left_out.append(item)
            else:
                item.add_marker(pytest.mark.xfail(strict=True, reason=reason))
    assert not unused, f"no such tests: {sorted(unused)}"
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture
def api() -> HfApi:
    """Return a client, in place of a fixture that huggingface_hub does not ship."""
    from huggingface_hub import HfApi

    return HfApi()
