"""Under MPI launchers and SLURM every process logs to its own file and the first one pushes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

import remote
import scripts
from events import event_files, scalars

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

PROCESSES = 3
SECONDS = 90.0

OPEN_MPI: tuple[str, list[str], str] = ("Open MPI", ["--allow-run-as-root", "--oversubscribe"], "OMPI_COMM_WORLD_RANK")
MPICH: tuple[str, list[str], str] = ("HYDRA", [], "PMI_RANK")

# SLURM's variables for a batch script and for processes that it starts without srun.
BATCH_SCRIPT = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NTASKS": str(PROCESSES)}

# The rank is read from a variable that the test names, to compare it with the library's result. The processes
# synchronize through files, since they use no MPI library, so that all events are in one push.
SCRIPT = """
import os, pathlib, sys, time
sys.modules["torch"] = None  # tensorboardX imports it if it is installed, which takes seconds
from hf_summary_writer import HFSummaryWriter
from hf_summary_writer.config import rank_of

folder, repo_id, variable, processes = sys.argv[1:]
place, number = pathlib.Path(folder), os.environ[variable]

def wait_for(*names):
    deadline = time.monotonic() + 60
    while not all((place / name).exists() for name in names):
        assert time.monotonic() < deadline, names
        time.sleep(0.02)

def commits(details):
    (place / f"committed-by-{number}").touch()

with HFSummaryWriter(repo_id, place / "run", commit_every=60, on_commit=commits, close_timeout=60) as writer:
    writer.add_scalar("rank", int(number), int(number))
    writer.flush()
    (place / f"logged-{number}").write_text(str(rank_of(os.environ)))
    if number == "0":
        wait_for(*(f"logged-{each}" for each in range(int(processes))))
        writer.scheduler.trigger().result(60)
        (place / "pushed").touch()
    wait_for("pushed")
"""


def mpi(says: str) -> str:
    """Return the launcher of an MPI implementation, recognized by its version text."""
    for name in ("mpirun", "mpirun.openmpi", "mpirun.mpich", "mpiexec.hydra"):
        found = shutil.which(name)
        if found and says in subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout:
            return found
    pytest.skip(f"no mpirun of {says} is installed")


def check(api: HfApi, repo_id: str, folder: Path) -> None:
    assert remote.files(api, repo_id) == remote.under(folder / "run", "tensorboard/run")
    assert sorted(scalars(folder / "run", "rank")) == [(rank, float(rank)) for rank in range(PROCESSES)]
    assert len(event_files(folder / "run")) == PROCESSES
    assert [(folder / f"logged-{rank}").read_text() for rank in range(PROCESSES)] == ["0", "1", "2"]
    assert [path.name for path in folder.glob("committed-by-*")] == ["committed-by-0"]


@pytest.mark.parametrize("kind", [OPEN_MPI, MPICH], ids=["Open MPI", "MPICH"])
def test_mpirun_in_a_batch_script(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path, kind: tuple[str, list[str], str]
) -> None:
    says, options, variable = kind
    command = [mpi(says), *options, "-n", str(PROCESSES), sys.executable, "-c", SCRIPT]
    done = subprocess.run(
        [*command, str(tmp_path), repo_id, variable, str(PROCESSES)],
        env={**scripts.environment(hub, tmp_path), **BATCH_SCRIPT},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    check(api, repo_id, tmp_path)


def test_tasks_of_slurm(hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path) -> None:
    with ExitStack() as running:
        tasks = []
        for number in range(PROCESSES):
            task = subprocess.Popen(
                [sys.executable, "-c", SCRIPT, str(tmp_path), repo_id, "SLURM_PROCID", str(PROCESSES)],
                env={
                    **scripts.environment(hub, tmp_path),
                    **BATCH_SCRIPT,
                    "SLURM_PROCID": str(number),
                    "SLURM_LOCALID": str(number),
                },
                stdin=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            running.enter_context(task)
            running.callback(task.kill)
            tasks.append(task)
        ends = [(task.communicate(timeout=SECONDS)[1], task.returncode) for task in tasks]
    assert [code for _, code in ends] == [0] * PROCESSES, ends
    check(api, repo_id, tmp_path)
