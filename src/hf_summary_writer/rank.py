"""Which process of a distributed run this is, and when one that is not the main process pushes all the same.

Launchers start one process per device and tell each its rank in environment variables. All of them may log, but one
push of a folder sends what all have written to it, so one process per folder is enough: the one of rank 0. Whether a
process of another rank shares the folder of rank 0, no variable tells: the hosts of a cluster may share a disk or not,
and the tasks of a sweep each have a run of their own. The folder tells, though: its ledger says when it was last
pushed. So a process of another rank is a deputy: it leaves a folder alone that somebody else pushes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Deputy", "Rank", "rank_of"]

_VARIABLES = (
    # torchrun, accelerate launch, deepspeed, Ray Train.
    ("RANK", "LOCAL_RANK"),
    # mpirun of Open MPI, of MPICH and Intel, of MVAPICH; jsrun.
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("PMI_RANK", "MPI_LOCALRANKID"),
    ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_LOCAL_RANK"),
    ("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_LOCAL_RANK"),
)
"""Number of the process in the run and on its host, by launcher.

SLURM is not among them: a batch script is its task 0, and whatever launcher the script starts inherits those variables,
so they count only where no other launcher tells anything.
"""

_PATIENCE_OF_A_HOSTS_FIRST = 2
_PATIENCE_OF_OTHERS = 3


@dataclass(frozen=True, slots=True)
class Rank:
    """The place of a process in a run.

    Attributes:
        number: 0 for the main process.
        local: 0 for the first process on its host.
    """

    number: int = 0
    local: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this is the main process of the run, as the only process of a run is."""
        return self.number == 0


def rank_of(environment: Mapping[str, str]) -> Rank:
    """Return the place that a launcher gave the process, that of a main process where there was none."""
    place_in_slurm = _number(environment, "SLURM_LOCALID")
    for number, local in _VARIABLES:
        if number in environment:
            # `srun --mpi=pmi2` tells the number as MPI does, and the place on the host in its own way only.
            return Rank(_number(environment, number), _number(environment, local, place_in_slurm))
    # Lightning, in the processes that it starts itself, gives the number of the host and of the process on it.
    place = _number(environment, "LOCAL_RANK", place_in_slurm)
    return Rank(_number(environment, "SLURM_PROCID") or _number(environment, "NODE_RANK") or place, place)


def _number(environment: Mapping[str, str], name: str, default: int = 0) -> int:
    text = environment.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else default


class Deputy:
    """Decides, once per interval, whether a process that is not the main one pushes its folder.

    It steps in when something has waited through several intervals in which nobody committed anything of the folder,
    and stays until somebody else does. The first process of a host has less patience than the others, so that of the
    processes that share a folder without a main process one steps in, and the others see it.

    Args:
        rank: The place of the process.
    """

    def __init__(self, rank: Rank) -> None:
        self._patience = _PATIENCE_OF_A_HOSTS_FIRST if rank.local == 0 else _PATIENCE_OF_OTHERS
        self._latest: str | None = None
        self._own: str | None = None
        self._intervals = 0

    def steps_in(self, latest: str | None, *, something_waits: bool) -> bool:
        """Tell whether to push now.

        Args:
            latest: The commit that last brought something of the folder to the Hub, by whomever.
            something_waits: Whether the folder holds what the Hub does not.
        """
        if self.is_in_charge(latest):
            return True
        if latest != self._latest or not something_waits:
            self._latest, self._intervals = latest, 0
            return False
        self._intervals += 1
        return self._intervals > self._patience

    def pushed(self, latest: str | None) -> None:
        """Note which commit is the latest after a push of this process."""
        self._own = self._latest = latest

    def is_in_charge(self, latest: str | None) -> bool:
        """Tell whether this process is the one that pushes the folder: the latest commit is its own."""
        return latest is not None and latest == self._own
