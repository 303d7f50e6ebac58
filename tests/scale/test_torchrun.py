"""After a rank of a distributed training is killed, the flushed events of all ranks are on the Hub exactly once."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import events
import remote
import scripts
from aftermath import assert_sound
from faults.proxy import FaultProxy, Hang
from scale.history import assert_every_commit_is_whole, assert_nothing_is_sent_twice, history, whole
from scale.launched import Launched

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from hub_process import HubProcess

pytestmark = pytest.mark.timeout(300)

RANKS = 4
STEPS, FAR_MORE_STEPS = 60, 1_000_000
TRAINING = Path(__file__).parent / "training" / "ranks.py"
FLUSHED = re.compile(r"flushed (\d+) (\d+) (\d+) (\d+)")


def flushed(lines: list[str]) -> dict[tuple[int, int], tuple[int, int]]:
    """Return the number of flushed steps and the pid, by attempt and rank."""
    found = (map(int, match.groups()) for line in lines if (match := FLUSHED.fullmatch(line)))
    return {(attempt, rank): (steps, pid) for attempt, rank, steps, pid in found}


def names_on_hub(api: HfApi, repo_id: str) -> str:
    return " ".join(api.list_repo_files(repo_id)) if api.repo_exists(repo_id) else ""


@pytest.mark.parametrize("victim", [0, 2])
@pytest.mark.parametrize("folders", ["shared", "separate"])
def test_after_the_kill_of_a_rank_all_flushed_events_are_on_the_hub_once(
    folders: str, victim: int, hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path, mark: dict[str, str]
) -> None:
    pytest.importorskip("torch")
    # The same folder name, as on hosts with separate disks.
    disk = "disk" if folders == "shared" else "disk-{rank}"
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(RANKS)),
        *(str(TRAINING), repo_id, str(tmp_path / disk / "first")),
    ]
    with FaultProxy(hub) as proxy:
        environment = {**scripts.environment(proxy, tmp_path), **mark, "OMP_NUM_THREADS": "1"}
        with Launched([*command, "0", str(FAR_MORE_STEPS)], environment) as torchrun:
            torchrun.wait_for(lambda lines: len(flushed(lines)) == RANKS, 120)
            ranks = {rank: pid for (_, rank), (_, pid) in flushed(torchrun.said).items()}
            # Wait until data of all ranks was uploaded, and then for the next commit with the victim's log.
            torchrun.wait_for(lambda _: all(f".{pid}_" in names_on_hub(api, repo_id) for pid in ranks.values()), 60)
            proxy.add("POST", "/commit/", Hang(), times=1, body=f".{ranks[victim]}_".encode())
            torchrun.wait_for(lambda _: any(seen.action == Hang() for seen in proxy.requests), 60)
            before = flushed(torchrun.said)
            os.kill(ranks[victim], signal.SIGKILL)
            proxy.clear()
            assert torchrun.end(120) != 0
        # Restart, as a batch system does after a failure.
        with Launched([*command, "1", str(STEPS)], environment) as again:
            assert again.end(120) == 0, "\n".join(again.said)
    after = flushed(torchrun.said) | flushed(again.said)
    assert {attempt for attempt, _ in after} == {0, 1}
    assert all(after[each] >= before[each] for each in before)

    places = sorted(tmp_path.glob("disk*/first"))
    assert len(places) == (1 if folders == "shared" else RANKS)
    here = {path: content for place in places for path, content in remote.under(place, "tensorboard/first").items()}
    assert len(here) == 2 * RANKS
    assert remote.files(api, repo_id) == {path: whole(content) for path, content in here.items()}
    commits = history(hub.root, repo_id)
    assert_every_commit_is_whole(commits, here)
    assert_nothing_is_sent_twice(commits)
    steps: Counter[tuple[int, int, int]] = Counter()
    for place in places:
        for event in events.logged(place, growing=True):
            for value in event.summary.value:
                _, attempt, rank = value.tag.split("/")
                steps[int(attempt), int(rank), event.step] += 1
        assert_sound(place)
    assert set(steps.values()) == {1}
    assert steps.keys() >= {(*each, step) for each, (count, _) in after.items() for step in range(count)}
