"""Leaving is bounded by `close_timeout`, all in all, whatever hangs and however many wait."""

from __future__ import annotations

import textwrap
import time
from typing import TYPE_CHECKING

import pytest

import events
import scripts
from aftermath import assert_sound
from faults.proxy import Drip, FaultProxy, Hang, Pass

if TYPE_CHECKING:
    from pathlib import Path

    from hub_process import HubProcess

SECONDS = 3.0
# What a busy machine may need on top, to end a process.
GRACE = 20.0

LOG = f"""
writer = HFSummaryWriter(repo_id, logdir=logdir, commit_every=60, close_timeout={SECONDS})
for step in range(1000):
    writer.add_scalar("loss", step, step)
"""
TWO_FILES = 'writer.add_scalars("both", {"a": 1, "b": 2})\n'
LEAVING = "print(time.monotonic(), flush=True)\n"


@pytest.mark.parametrize("where", ["/repos/create", "/preupload/", r"/xorb|/shard|/lfs-objects/|/info/lfs", "/commit/"])
@pytest.mark.parametrize("trouble", [Hang(), Drip()], ids=["hangs", "drips"])
@pytest.mark.faults
def test_an_exit_leaves_in_time_with_one_command_though_the_hub_hangs(
    proxy: FaultProxy, repo_id: str, logdir: Path, where: str, trouble: Hang | Drip
) -> None:
    proxy.add("*", where, trouble, times=99)
    ended = scripts.run(LOG + TWO_FILES + LEAVING + "sys.exit(3)", proxy, logdir, repo_id)
    assert ended.returncode == 3, ended.stderr
    assert time.monotonic() - float(ended.stdout) < SECONDS + GRACE
    assert ended.stderr.count("hf-summary-writer sync") == 1, ended.stderr
    assert ended.stderr.count("WARNING") == 1, ended.stderr
    assert events.steps(logdir, "loss") == list(range(1000))
    assert_sound(logdir)


@pytest.mark.faults("N9")
def test_after_a_last_push_in_vain_no_exit_says_that_all_is_there(
    proxy: FaultProxy, repo_id: str, logdir: Path
) -> None:
    body = f"""
    from pathlib import Path
    folder = Path(logdir)
    with CommitScheduler(repo_id=repo_id, folder_path=folder, every=60, close_timeout={SECONDS}) as scheduler:
        (folder / "a.bin").write_bytes(b"1")
        scheduler.trigger().result(30)
        (folder / "b.bin").write_bytes(b"2")
    """
    proxy.add("POST", "/commit/", Pass())
    proxy.add("POST", "/commit/", Hang(), times=99)
    ended = scripts.run(textwrap.dedent(body), proxy, logdir, repo_id)
    assert ended.returncode == 0, ended.stderr
    said = ended.stderr
    assert said.count("hf-summary-writer sync") == 1, said
    assert "All " not in said, said


def test_closing_and_both_passes_of_the_exit_wait_once_together(proxy: FaultProxy, repo_id: str, logdir: Path) -> None:
    proxy.add("*", ".", Hang(), times=99)
    several = f"""
more = [HFSummaryWriter(repo_id, logdir=f"{{logdir}}-{{n}}", close_timeout={SECONDS}) for n in range(9)]
for each in more:
    each.add_scalar("loss", 1, 1)
{LEAVING}
writer.close()
writer.close()
"""
    ended = scripts.run(LOG + several, proxy, logdir, repo_id)
    assert ended.returncode == 0, ended.stderr
    # One for the `close` of the first writer, and one for the exit of the other nine together.
    assert time.monotonic() - float(ended.stdout) < 2 * SECONDS + GRACE
    assert ended.stderr.count("hf-summary-writer sync") == 10, ended.stderr
    assert_sound(logdir)


def test_a_push_that_hangs_before_the_exit_does_not_hold_it_either(
    proxy: FaultProxy, repo_id: str, logdir: Path
) -> None:
    proxy.add("*", ".", Hang(), times=99)
    body = LOG + TWO_FILES + "writer.scheduler.trigger()\nprint('begun', flush=True)\nsys.stdin.read()\n" + LEAVING
    body = body.replace("sys.stdin.read()", "time.sleep(2)")
    ended = scripts.run(body, proxy, logdir, repo_id)
    assert ended.returncode == 0, ended.stderr
    assert time.monotonic() - float(ended.stdout.split()[1]) < SECONDS + GRACE
    assert ended.stderr.count("hf-summary-writer sync") == 1, ended.stderr
    assert_sound(logdir)


@pytest.mark.faults("D15")
@pytest.mark.parametrize("leave", ["", "writer.close()", "writer.scheduler.close()"])
def test_an_exit_on_a_disk_that_hangs_counts_no_files_and_names_the_command(
    hub: HubProcess, repo_id: str, logdir: Path, leave: str
) -> None:
    hang = """
more = HFSummaryWriter(repo_id, logdir=f"{logdir}-2", commit_every=60, close_timeout=1)
for each in [writer, more]:
    each.scheduler.trigger().result()
    each.add_scalar("loss", 1000, 1000)
    each.flush()
scandir = os.scandir
os.scandir = lambda path: threading.Event().wait() if str(path).startswith(logdir) else scandir(path)
"""
    ended = scripts.run(LOG.replace(str(SECONDS), "1") + hang + leave, hub, logdir, repo_id)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("could not be counted") == 2, ended.stderr
    assert ended.stderr.count("hf-summary-writer sync") == 2
    assert events.steps(logdir, "loss") == list(range(1001))
