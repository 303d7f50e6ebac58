"""Uses of the public API for type checkers; this file is not run."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING

import numpy as np
from huggingface_hub import CommitInfo
from numpy.typing import NDArray
from typing_extensions import assert_type

from hf_summary_writer import (
    CommitDetails,
    CommitScheduler,
    ErrorDetails,
    HFSummaryWriter,
    PushError,
    Scalars,
    Status,
    __version__,
    read,
)

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import HfApi


def train(folder: Path) -> None:
    with HFSummaryWriter("my-experiments", logdir=folder, commit_every=0.5, repo_private=True) as writer:
        assert_type(writer, HFSummaryWriter)
        writer.add_scalar("loss", 0.5, 1)
        writer.add_scalars("losses", {"train": 0.5, "test": 0.6}, global_step=1)
        writer.add_histogram("weights", [0.1, 0.2])
        writer.add_text("note", "warm-up is over", 1)
        writer.add_hparams({"lr": 0.1, "optimizer": "sgd"}, {"accuracy": 0.9})
        writer.flush()
        assert_type(writer.scheduler, CommitScheduler)
        assert_type(writer.scheduler.trigger(), Future[CommitInfo | None])
        assert_type(writer.url, str | None)
        assert_type(writer.repo_id, str)
        assert_type(writer.repo_type, str | None)
        assert_type(writer.repo_revision, str | None)


def resume_with_own_client(api: HfApi) -> None:
    writer = HFSummaryWriter(log_dir="runs/first", hf_api=api, repo_ignore_patterns=["*.tmp"], purge_step=10)
    writer.close()


def log_each_commit() -> HFSummaryWriter:
    return HFSummaryWriter(
        "my-experiments",
        on_commit=lambda commit: assert_type(commit.url, str),
        on_error=lambda failure: assert_type(failure.error, BaseException),
        on_stall=lambda stall: assert_type(stall.seconds, float),
        stall_after=1800,
    )


def push_a_folder(folder: Path) -> CommitInfo | None:
    with CommitScheduler(repo_id="my-experiments", folder_path=folder, every=5) as scheduler:
        assert_type(scheduler, CommitScheduler)
        assert_type(scheduler.status().all_arrived, bool)
        assert_type(scheduler.last_future, Future[CommitInfo | None] | None)
        with scheduler.lock:
            (folder / "metrics.json").write_text("{}")
        return scheduler.trigger().result(60)


class Reporting(CommitScheduler):
    def push_to_hub(self) -> CommitInfo | None:
        commit = super().push_to_hub()
        assert_type(commit, CommitInfo | None)
        return commit


class WithPrefix(HFSummaryWriter):
    def add_loss(self, loss: float, step: int) -> None:
        self.add_scalar("prefix/loss", loss, step)


def subclass_keeps_its_type() -> None:
    with WithPrefix("my-experiments") as writer:
        assert_type(writer, WithPrefix)
        writer.add_loss(0.5, 1)


def use_other_public_names(details: CommitDetails, failure: ErrorDetails, scheduler: CommitScheduler) -> None:
    assert_type(__version__, str)
    assert_type(details.bytes, int)
    if isinstance(failure.error, PushError):
        assert_type(failure.error.retry_after, float | None)
    assert_type(scheduler.status(), Status)


def read_scalars_back(folder: Path) -> float:
    runs = read(folder, ["loss"], runs="first")
    assert_type(runs, dict[str, dict[str, Scalars]])
    scalars = runs["first"]["loss"]
    assert_type(scalars.steps, NDArray[np.int64])
    return float(scalars.values[-1])
