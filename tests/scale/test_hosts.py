"""Hosts of their own push to one Hub: one is cut off for a while, one is killed, the line of one is slow."""

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
    """Return how many steps a training has said to be flushed."""
    return max((int(line.split()[1]) for line in lines if line.startswith("flushed ")), default=0)


def pushes(commits: list[Commit], host: str) -> int:
    """Return how many commits brought something of a host."""
    return sum(any(path.startswith(f"tensorboard/{host}/") for path in commit.changes) for commit in commits)


def test_after_healing_the_hub_holds_all_of_hosts_that_were_cut_off_killed_and_slow(
    network: Network, client: Callable[..., HfApi], tmp_path: Path, mark: Mapping[str, str]
) -> None:
    root, stop = tmp_path / "hub", tmp_path / "stop"
    listening = ["--host", network.address, "--token", TOKEN]
    folders = {host: tmp_path / host / host for host in HOSTS}
    if not why_no_links_can_be_slow():
        network.slow_down("slow", BITS_PER_SECOND)
    with contextlib.ExitStack() as stack:
        hub = stack.enter_context(HubProcess(root, *listening, launcher=network.on("switch")))
        environments = {host: {**scripts.environment(hub, tmp_path / host), **mark} for host in HOSTS}
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
            training.wait_for(lambda _, host=host: pushes(history(root, REPO), host) >= 2, SECONDS)

        network.cut_off("cut")
        before = flushed(trainings["cut"].said)
        # The training does not notice, and the others go on.
        trainings["cut"].wait_for(lambda lines: flushed(lines) > before + 500, SECONDS)
        commits = history(root, REPO)
        for host in ("dead", "slow"):
            enough = pushes(commits, host) + 2
            trainings[host].wait_for(
                lambda _, host=host, enough=enough: pushes(history(root, REPO), host) >= enough, SECONDS
            )
        assert pushes(history(root, REPO), "cut") == pushes(commits, "cut")

        trainings["dead"].process.kill()
        trainings["dead"].process.wait()
        network.reconnect("cut")
        healed = pushes(history(root, REPO), "cut")
        trainings["cut"].wait_for(lambda _: pushes(history(root, REPO), "cut") > healed, SECONDS)

        stop.touch()
        for host in ("cut", "slow"):
            assert trainings[host].end(SECONDS) == 0, "\n".join(trainings[host].said)
            assert "hf-summary-writer sync" not in "\n".join(trainings[host].said)
        # The host that died comes back, and somebody sends what it had left there.
        again = stack.enter_context(
            Launched([*network.on("dead"), *commands.command("sync", folders["dead"])], environments["dead"])
        )
        assert again.end(SECONDS) == 0, "\n".join(again.said)
        assert hub.stop() in (0, -signal.SIGTERM)

    here = {
        path: content for host, folder in folders.items() for path, content in remote.under(folder, f"tensorboard/{host}").items()
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
        pytest.skip(f"all of this held, but no line was slow: {reason}")
