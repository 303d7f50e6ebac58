"""When folders are pushed, and one push from the changed files to the ledger. Knows no scheduler."""

from __future__ import annotations

from hf_summary_writer.push.job import Job
from hf_summary_writer.push.leftovers import look_for_leftovers
from hf_summary_writer.push.links import linked_folders, unfollowed, unfollowed_error
from hf_summary_writer.push.loop import PushLoop, PushTask, loop_to
from hf_summary_writer.push.neighbours import warn_of_neighbours
from hf_summary_writer.push.once import sync
from hf_summary_writer.push.push import OverriddenPusher
from hf_summary_writer.push.report import call_hook
from hf_summary_writer.push.run_job import RunJob
from hf_summary_writer.push.run_state import MAX_STATE_BYTES, RunPhase, RunState, is_state_file
from hf_summary_writer.push.runs import Run
from hf_summary_writer.push.shutdown import Shutdown
from hf_summary_writer.push.status import Status, StatusFile, inspect_folder, known_folders, matches_nothing
from hf_summary_writer.push.timetable import Phase

__all__ = [
    "MAX_STATE_BYTES",
    "Job",
    "OverriddenPusher",
    "Phase",
    "PushLoop",
    "PushTask",
    "Run",
    "RunJob",
    "RunPhase",
    "RunState",
    "Shutdown",
    "Status",
    "StatusFile",
    "call_hook",
    "inspect_folder",
    "is_state_file",
    "known_folders",
    "linked_folders",
    "look_for_leftovers",
    "loop_to",
    "matches_nothing",
    "sync",
    "unfollowed",
    "unfollowed_error",
    "warn_of_neighbours",
]
