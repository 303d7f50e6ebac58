"""The rank of a process, from the variables of its launcher."""

from __future__ import annotations

import pytest

from hf_summary_writer.config import has_ranks, rank_of


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({}, 0),
        ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "8"}, 0),
        ({"RANK": "9", "LOCAL_RANK": "1"}, 9),
        ({"RANK": "8", "LOCAL_RANK": "0"}, 8),
        ({"SLURM_PROCID": "3", "SLURM_LOCALID": "3"}, 3),
        ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}, 2),
        ({"PMI_RANK": "1", "MPI_LOCALRANKID": "1"}, 1),
        ({"MV2_COMM_WORLD_RANK": "1"}, 1),
        ({"JSM_NAMESPACE_RANK": "4", "JSM_NAMESPACE_LOCAL_RANK": "2"}, 4),
    ],
    ids=str,
)
def test_the_rank_is_read_from_the_launcher(environment: dict[str, str], rank: int) -> None:
    assert rank_of(environment) == rank
    assert has_ranks(environment) is bool(environment)


IN_A_BATCH_SCRIPT = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}


@pytest.mark.parametrize(
    "told",
    [
        {"RANK": "1", "LOCAL_RANK": "1"},
        {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1"},
        {"PMI_RANK": "1", "MPI_LOCALRANKID": "1"},
        {"MV2_COMM_WORLD_RANK": "1", "MV2_COMM_WORLD_LOCAL_RANK": "1"},
        {"LOCAL_RANK": "1", "NODE_RANK": "0"},
    ],
    ids=str,
)
def test_processes_started_by_a_batch_script_are_no_slurm_tasks(told: dict[str, str]) -> None:
    # The script itself is task 0, and its child processes inherit that.
    assert rank_of({**IN_A_BATCH_SCRIPT, **told}) == 1


def test_torchrun_numbers_hosts_in_its_own_order() -> None:
    assert rank_of({"SLURM_PROCID": "1", "SLURM_LOCALID": "0", "RANK": "0", "LOCAL_RANK": "0"}) == 0


@pytest.mark.parametrize(
    ("node", "local", "main"), [("0", "0", True), ("0", "1", False), ("1", "0", False), ("1", "1", False)]
)
def test_lightning_numbers_hosts_and_processes(node: str, local: str, main: bool) -> None:
    assert (rank_of({"NODE_RANK": node, "LOCAL_RANK": local}) == 0) == main
    assert (rank_of({"LOCAL_RANK": local}) == 0) == (local == "0")


def test_a_slurm_task_with_a_local_rank_keeps_its_rank() -> None:
    assert rank_of({"SLURM_PROCID": "2", "SLURM_LOCALID": "0", "LOCAL_RANK": "0"}) == 2


@pytest.mark.parametrize("nonsense", ["", "x", "-1", "1.5", "²"])
def test_an_invalid_rank_is_ignored(nonsense: str) -> None:
    assert rank_of({"RANK": nonsense, "LOCAL_RANK": nonsense}) == 0
