"""Where a folder is pushed and how: `PushConfig`, made from arguments, variables, command-line options or a ledger."""

from __future__ import annotations

from hf_summary_writer.config.arguments import complete_arguments, unknown_variables
from hf_summary_writer.config.destination import Destination
from hf_summary_writer.config.environment import (
    MODE,
    PUSHED_FOLDER,
    Mode,
    commits_per_hour,
    has_ranks,
    is_pushed_from_outside,
    mode_for,
    rank_of,
)
from hf_summary_writer.config.option import option_of
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
    "DEFAULT_CLOSE_TIMEOUT",
    "DEFAULT_MINUTES",
    "DEFAULT_STALL_SECONDS",
    "MODE",
    "PUSHED_FOLDER",
    "RUNS_FOLDER",
    "RUN_FILES",
    "Destination",
    "Mode",
    "PushConfig",
    "commits_per_hour",
    "complete_arguments",
    "has_ranks",
    "is_pushed_from_outside",
    "known_sync_command",
    "mode_for",
    "option_of",
    "rank_of",
    "unknown_variables",
    "with_uri",
]
