"""A sweep of 32 trials on a Ray cluster is uploaded completely within the Hub's commit limit."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import commands
import events
import remote
import scripts
from hub_process import HubProcess
from scale.history import assert_every_commit_is_whole, assert_nothing_is_sent_twice, history
from scale.launched import Launched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from huggingface_hub import HfApi

pytestmark = pytest.mark.timeout(400)

TRAININGS = Path(__file__).parent / "training"
TRIALS, AT_ONCE, STEPS = 32, 4, 60
COMMITS_PER_HOUR = 128
REPO = "tester/sweep"
SECONDS = 300.0


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Return a folder with a short path: Ray creates sockets in it."""
    pytest.importorskip("ray")
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[HubProcess]:
    with HubProcess(tmp_path / "hub", "--commits-per-hour", str(COMMITS_PER_HOUR)) as running:
        yield running


@pytest.fixture
def environment(limited: HubProcess, tmp_path: Path, mark: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of all processes of one user on one machine."""
    return {
        **scripts.environment(limited, tmp_path),
        **mark,
        "HF_SUMMARY_WRITER_COMMITS_PER_HOUR": str(COMMITS_PER_HOUR),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_AUTH_MODE": "disabled",
        "OMP_NUM_THREADS": "1",
    }


def refused(hub: HubProcess) -> list[str]:
    return [f"{seen.method} {seen.path}" for seen in hub.requests if seen.status == 429]


def made(hub: HubProcess) -> int:
    """Return the number of commit requests."""
    return sum(seen.method == "POST" and "/commit/" in seen.path for seen in hub.requests)


@pytest.mark.parametrize("watched", [False, True], ids=["each trial pushes", "sync --watch pushes"])
def test_a_sweep_on_a_ray_cluster_is_uploaded_within_the_commit_limit(
    watched: bool,
    limited: HubProcess,
    client: Callable[..., HfApi],
    environment: dict[str, str],
    ray_folder: Path,
    tmp_path: Path,
) -> None:
    parent = tmp_path / "runs"
    parent.mkdir()
    sweep = [str(TRAININGS / "sweep.py"), REPO, str(parent), str(ray_folder), str(TRIALS), str(AT_ONCE)]
    watching = commands.command("sync", parent, REPO, "--into", "tensorboard", "--watch", "--every", "0.05")
    if watched:
        with Launched(watching, environment) as watcher:
            watcher.wait_for(lambda lines: any("until Ctrl-C" in line for line in lines), 60)
            with Launched([sys.executable, *sweep], environment) as ray:
                assert ray.end(SECONDS) == 0, "\n".join(ray.said[-60:])
            os.kill(watcher.process.pid, signal.SIGTERM)
            assert watcher.end(60) == 0, "\n".join(watcher.said[-40:])
    else:
        with Launched([sys.executable, *sweep], environment) as ray:
            assert ray.end(SECONDS) == 0, "\n".join(ray.said[-60:])
    [workers] = [int(line.split()[1]) for line in ray.said if line.startswith("workers ")]
    assert workers > 1

    assert refused(limited) == []
    assert made(limited) <= COMMITS_PER_HOUR
    here = remote.under(parent, "tensorboard")
    assert len(list(parent.glob("trial-*"))) == TRIALS
    for folder in parent.glob("trial-*"):
        assert events.steps(folder, "loss") == list(range(STEPS))
    assert remote.files(client(limited), REPO) == here
    commits = history(limited.root, REPO)
    assert_every_commit_is_whole(commits, here)
    assert_nothing_is_sent_twice(commits)


def test_each_ray_train_worker_logs_and_nothing_is_sent_twice(
    limited: HubProcess,
    client: Callable[..., HfApi],
    environment: dict[str, str],
    ray_folder: Path,
    tmp_path: Path,
) -> None:
    pytest.importorskip("torch")
    logdir = tmp_path / "runs" / "train"
    training = [sys.executable, str(TRAININGS / "train.py"), REPO, str(logdir), str(ray_folder)]
    with Launched(training, environment) as ray:
        assert ray.end(SECONDS) == 0, "\n".join(ray.said[-60:])
    for rank in range(2):
        assert events.steps(logdir, f"loss/{rank}") == list(range(60))
    here = remote.under(logdir, "tensorboard/train")
    assert len(here) == 2
    assert remote.files(client(limited), REPO) == here
    commits = history(limited.root, REPO)
    assert_every_commit_is_whole(commits, here)
    assert_nothing_is_sent_twice(commits)
