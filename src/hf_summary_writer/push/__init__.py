"""When folders are pushed, and one push from the changed files to the ledger. Knows no writer."""

from __future__ import annotations

from hf_summary_writer.push.budget import CommitQueue, commit_queue_of
from hf_summary_writer.push.job import Job
from hf_summary_writer.push.loop import PushLoop, loop_to
from hf_summary_writer.push.once import known_configs, sync
from hf_summary_writer.push.outcomes import Outcomes
from hf_summary_writer.push.push import Pusher, Round
from hf_summary_writer.push.report import FailureLog, Shutdown
from hf_summary_writer.push.status import Missing, Status, StatusFile, known_folders, matches_nothing, missing, survey
from hf_summary_writer.push.task import Phase, PushTask

__all__ = [
    "CommitQueue",
    "FailureLog",
    "Job",
    "Missing",
    "Outcomes",
    "Phase",
    "PushLoop",
    "PushTask",
    "Pusher",
    "Round",
    "Shutdown",
    "Status",
    "StatusFile",
    "commit_queue_of",
    "known_configs",
    "known_folders",
    "loop_to",
    "matches_nothing",
    "missing",
    "survey",
    "sync",
]
