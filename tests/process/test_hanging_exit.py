"""Exit takes at most `close_timeout` in total, for any hanging call and any number of writers."""

from __future__ import annotations

import sys
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
# Additional seconds for a busy machine to end a process.
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
def test_exit_is_on_time_and_names_one_command_while_the_hub_hangs(
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
def test_after_a_failed_last_push_the_exit_does_not_report_success(
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


def test_repeated_closes_and_the_exit_share_the_close_timeouts(proxy: FaultProxy, repo_id: str, logdir: Path) -> None:
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
    # Once for the `close` of the first writer, and once for the other nine together at exit.
    assert time.monotonic() - float(ended.stdout) < 2 * SECONDS + GRACE
    assert ended.stderr.count("hf-summary-writer sync") == 10, ended.stderr
    assert_sound(logdir)


def test_a_push_that_hung_before_the_exit_does_not_delay_it(proxy: FaultProxy, repo_id: str, logdir: Path) -> None:
    proxy.add("*", ".", Hang(), times=99)
    body = LOG + TWO_FILES + "writer.scheduler.trigger()\nprint('begun', flush=True)\ntime.sleep(2)\n" + LEAVING
    ended = scripts.run(body, proxy, logdir, repo_id)
    assert ended.returncode == 0, ended.stderr
    assert time.monotonic() - float(ended.stdout.split()[1]) < SECONDS + GRACE
    assert ended.stderr.count("hf-summary-writer sync") == 1, ended.stderr
    assert_sound(logdir)


@pytest.mark.faults("D15")
@pytest.mark.parametrize(
    "leave",
    [
        pytest.param(
            "",
            marks=pytest.mark.skipif(
                (3, 12) <= sys.version_info < (3, 12, 3), reason="no thread that could be abandoned starts at exit"
            ),
        ),
        "writer.close()",
        "writer.scheduler.close()",
    ],
)
def test_exit_on_a_hung_disk_counts_no_files_and_names_the_command(
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
