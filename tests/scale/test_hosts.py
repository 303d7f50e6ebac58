"""Three hosts push to one Hub: one is disconnected for a while, one is killed, one has a slow link."""

from __future__ import annotations

import contextlib
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import commands
import events
import remote
import scripts
from aftermath import assert_sound
from hub_process import HubProcess
from scale.history import Commit, assert_every_commit_is_whole, assert_nothing_is_sent_twice, history, whole
from scale.launched import Launched
from scale.network import Network, why_no_links_can_be_slow, why_there_are_no_hosts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from huggingface_hub import HfApi

pytestmark = pytest.mark.timeout(300)

HOSTS = ("cut", "dead", "slow")
TRAINING = Path(__file__).parent / "training" / "host.py"
REPO = "tester/hosts"
TOKEN = "hf_of_three_hosts"
BITS_PER_SECOND = 800_000
SECONDS = 120.0


@pytest.fixture
def network() -> Iterator[Network]:
    if reason := why_there_are_no_hosts():
        pytest.skip(reason)
    with Network(*HOSTS) as running:
        yield running


def flushed(lines: list[str]) -> int:
    """Return the number of steps that a training reported as flushed."""
    return max((int(line.split()[1]) for line in lines if line.startswith("flushed ")), default=0)


def pushes(commits: list[Commit], host: str) -> int:
    """Return the number of commits with data of a host."""
    return sum(any(path.startswith(f"tensorboard/{host}/") for path in commit.changes) for commit in commits)


def pushed(root: Path, host: str, times: int) -> Callable[[object], bool]:
    """Return a condition that holds once `times` commits have data of a host."""
    return lambda _: pushes(history(root, REPO), host) >= times


def test_disconnected_killed_and_slow_hosts_upload_all_their_data(
    network: Network, client: Callable[..., HfApi], tmp_path: Path, mark: Mapping[str, str]
) -> None:
    root, stop = tmp_path / "hub", tmp_path / "stop"
    listening = ["--host", network.address, "--token", TOKEN]
    folders = {host: tmp_path / host / host for host in HOSTS}
    if not why_no_links_can_be_slow():
        network.slow_down("slow", BITS_PER_SECOND)
    with contextlib.ExitStack() as stack:
        hub = stack.enter_context(HubProcess(root, *listening, launcher=network.on("switch")))
        often = {**mark, "HF_SUMMARY_WRITER_COMMIT_EVERY": "0.02"}
        environments = {host: {**scripts.environment(hub, tmp_path / host), **often} for host in HOSTS}
        trainings = {
            host: stack.enter_context(
                Launched(
                    [*network.on(host), sys.executable, str(TRAINING), REPO, str(folders[host]), str(stop)],
                    environments[host],
                )
            )
            for host in HOSTS
        }
        for host, training in trainings.items():
            training.wait_for(pushed(root, host, 2), SECONDS)

        network.cut_off("cut")
        before = flushed(trainings["cut"].said)
        # The training continues, and so do the others.
        trainings["cut"].wait_for(lambda lines: flushed(lines) > before + 500, SECONDS)
        commits = history(root, REPO)
        for host in ("dead", "slow"):
            trainings[host].wait_for(pushed(root, host, pushes(commits, host) + 2), SECONDS)
        assert pushes(history(root, REPO), "cut") == pushes(commits, "cut")

        trainings["dead"].process.kill()
        trainings["dead"].process.wait()
        network.reconnect("cut")
        trainings["cut"].wait_for(pushed(root, "cut", pushes(commits, "cut") + 1), SECONDS)

        stop.touch()
        for host in ("cut", "slow"):
            assert trainings[host].end(SECONDS) == 0, "\n".join(trainings[host].said)
            assert "hf-summary-writer sync" not in "\n".join(trainings[host].said)
        # The dead host is restarted, and `sync` uploads the rest of its run.
        again = stack.enter_context(
            Launched([*network.on("dead"), *commands.command("sync", folders["dead"])], environments["dead"])
        )
        assert again.end(SECONDS) == 0, "\n".join(again.said)
        assert hub.stop() in (0, -signal.SIGTERM)

    here = {
        path: content
        for host, folder in folders.items()
        for path, content in remote.under(folder, f"tensorboard/{host}").items()
    }
    with HubProcess(root, "--token", TOKEN) as hub:
        assert remote.files(client(hub), REPO) == {path: whole(content) for path, content in here.items()}
    commits = history(root, REPO)
    assert_every_commit_is_whole(commits, here)
    assert_nothing_is_sent_twice(commits)
    for host, training in trainings.items():
        found = events.steps(folders[host], "loss", growing=True)
        assert found == list(range(len(found)))
        assert len(found) >= flushed(training.said)
        assert_sound(folders[host])
    if reason := why_no_links_can_be_slow():
        pytest.skip(f"passed, but without a slow link: {reason}")
