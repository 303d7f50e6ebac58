"""Where a folder is pushed and how: `PushConfig`, made from arguments, variables, command-line options or a ledger."""

from __future__ import annotations

from hf_summary_writer.config.arguments import complete_arguments
from hf_summary_writer.config.destination import Destination
from hf_summary_writer.config.environment import COMMITS_PER_HOUR, MODE, PUSHED_FOLDER, Mode, commits_per_hour, mode_for
from hf_summary_writer.config.option import Option, option_of
from hf_summary_writer.config.push_config import (
    DEFAULT_CLOSE_TIMEOUT,
    DEFAULT_MINUTES,
    DEFAULT_STALL_SECONDS,
    RUN_FILES,
    RUNS_FOLDER,
    PushConfig,
    known_sync_command,
    with_uri,
)

__all__ = [
    "COMMITS_PER_HOUR",
    "DEFAULT_CLOSE_TIMEOUT",
    "DEFAULT_MINUTES",
    "DEFAULT_STALL_SECONDS",
    "MODE",
    "PUSHED_FOLDER",
    "RUNS_FOLDER",
    "RUN_FILES",
    "Destination",
    "Mode",
    "Option",
    "PushConfig",
    "commits_per_hour",
    "complete_arguments",
    "known_sync_command",
    "mode_for",
    "option_of",
    "with_uri",
]
