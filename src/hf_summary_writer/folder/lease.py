"""One push at a time per folder: the push lock, the mark of a watched folder, and the ranks of a distributed run."""

from __future__ import annotations

import contextlib
import errno
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_summary_writer.errors import TemporaryError
from hf_summary_writer.folder import disk
from hf_summary_writer.folder.ledger import STATE_FOLDER, Ledger, LedgerError
from hf_summary_writer.folder.patterns import PathFilter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import filelock

    from hf_summary_writer.config import Destination, PushConfig
    from hf_summary_writer.folder.disk import WarnOnce

__all__ = [
    "Books",
    "Deputy",
    "LockUnavailableError",
    "Rank",
    "WatchMark",
    "folder_lock",
    "is_locked",
    "new_lock",
    "rank_of",
    "watcher_of",
]

_POLL_SECONDS = 0.1

_UNSUPPORTED = frozenset(
    {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EROFS, errno.EACCES, errno.EPERM}
)


class LockUnavailableError(Exception):
    """The file system has no locks, or the folder cannot be written to; the message says which."""


def new_lock(path: Path) -> filelock.BaseFileLock:
    """Return a fresh lock of the system's own on the file `path`, which any thread may release."""
    import filelock  # in the thread that pushes: it would be a good part of what importing this package costs

    # A soft lock in place of a missing real one would outlive a killed process.
    return filelock.FileLock(path, mode=0o600, thread_local=False, fallback_to_soft=False)


def is_locked(path: Path) -> bool:
    """Tell whether somebody holds the lock file `path`; makes no file, and looks like a very short holder itself."""
    import filelock

    if not path.exists():
        return False
    lock = new_lock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        return True
    except (OSError, NotImplementedError):
        return False  # there are no locks here, or not for us
    lock.release()
    return False


@contextlib.contextmanager
def folder_lock(path: Path, seconds: float, interrupted: Callable[[], bool]) -> Iterator[None]:
    """Hold the lock file `path` for the length of a `with` block.

    A fresh lock object each time: it is never shared between threads. The operating system frees the lock of a process
    that dies; the copy of the descriptor that a forked child inherits is closed there by filelock, without unlocking.

    Args:
        path: The lock's file; its folder must exist.
        seconds: How long to wait for another holder.
        interrupted: Asked while waiting; true ends the wait.

    Raises:
        LockUnavailableError: If there can be no lock here.
        TemporaryError: If another process or thread held it for all that time.
    """
    import filelock

    lock = new_lock(path)
    deadline = time.monotonic() + seconds
    try:
        while True:
            try:
                lock.acquire(timeout=min(_POLL_SECONDS, seconds), poll_interval=_POLL_SECONDS / 2)
                break
            except filelock.Timeout:
                if interrupted() or time.monotonic() >= deadline:
                    raise TemporaryError("another process is pushing this folder") from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _UNSUPPORTED:
            raise
        raise LockUnavailableError(str(error)) from None
    try:
        yield
    finally:
        lock.release()


class Books:
    """What is known to have arrived of one folder at one destination, and the right to push it.

    Not thread-safe: its owner uses it from one thread at a time.

    Args:
        folder: The folder, an absolute path without links.
        destination: Where it goes.
        once: Says what is wrong with the disk.

    Attributes:
        ledger: What has arrived.
        state_folder: Where all that is kept on disk.
    """

    def __init__(self, folder: Path, destination: Destination, once: WarnOnce) -> None:
        """Look at nothing yet."""
        self._folder = folder
        self._once = once
        self.state_folder = folder / STATE_FOLDER
        self.ledger = Ledger(self.state_folder / f"{destination.key}.jsonl", destination)

    @property
    def lock_path(self) -> Path:
        """The file whose lock means that somebody pushes this folder."""
        return self.state_folder / "push.lock"

    def refresh(self) -> None:
        """Read what other processes have pushed."""
        try:
            self.ledger.refresh()
        except LedgerError as error:
            self._once.warn("ledger", f"All of {self._folder} is looked at, since what arrived is not known: {error}")
        except OSError as error:
            self._say_state_is_lost(error)

    def note(self, write: Callable[[], None]) -> None:
        """Write to the ledger; what cannot be written is known to this process all the same."""
        try:
            write()
        except OSError as error:
            self._say_state_is_lost(error)

    @contextlib.contextmanager
    def locked(self, seconds: float, interrupted: Callable[[], bool]) -> Iterator[None]:
        """Push alone for the length of a `with` block.

        Args:
            seconds: How long to wait for another holder.
            interrupted: Asked while waiting; true ends the wait.

        Raises:
            TemporaryError: If another process or thread pushed for all that time.
        """
        with contextlib.ExitStack() as held:
            try:
                with disk.StateFolder(self.state_folder).opened(create=True):
                    pass  # neither a link nor a file
                held.enter_context(folder_lock(self.lock_path, seconds, interrupted))
            except (LockUnavailableError, OSError) as error:
                # Pushes are safe without the lock, since they only ever repeat; they may then send something twice.
                self._say_state_is_lost(error)
            yield

    def _say_state_is_lost(self, error: Exception) -> None:
        # One cause, and one warning: where no lock can be, no ledger can be written, and the other way round.
        self._once.warn(
            "state",
            f"{self.state_folder} cannot be used ({error}): pushes go on, but what arrived is known to this "
            "process alone, so let no other one push this folder",
        )


_MAX_BYTES = 64 * 2**10

# Who looks at a lock holds it for a moment, and must not be taken for a watcher by another one who looks.
_LOOKS = 5

_PAUSE_SECONDS = 0.005

# What every writer calls its files, to find out whether a watcher means them.
_AN_EVENT_FILE = "events.out.tfevents.1.host"


class WatchMark:
    """Says for as long as it is held that a folder is pushed by this process.

    Not thread-safe: its owner uses it from one thread at a time.

    Args:
        folder: The folder, an absolute path without links.
        config: Where it goes, and which files of it.
    """

    def __init__(self, folder: Path, config: PushConfig) -> None:
        destination = config.destination
        self._folder = folder
        self._path = folder / STATE_FOLDER / f"{destination.key}.watch.json"
        self._destination = destination
        self._config = config
        self._said: dict[str, Any] = {}
        self._lock: Any = None
        self._locked: tuple[int, int] | None = None

    def hold(self, repo_id: str) -> None:
        """Make the mark, or make it again; does nothing where it cannot be, or another process holds it.

        Args:
            repo_id: The repo's id as far as it is known, with its namespace once the Hub has said which.
        """
        where = self._destination
        said = {
            "endpoint": where.endpoint,
            "repo_type": where.repo_type,
            "repo_ids": sorted({where.repo_id, repo_id}),
            "revision": where.revision,
            "allow": self._config.allow_patterns,
            "ignore": self._config.ignore_patterns,
        }
        with contextlib.suppress(OSError, NotImplementedError):
            if not self._folder.is_dir():
                return  # whoever deleted it does not want it back
            if said != self._said or not self._path.exists():
                disk.write_json(self._path, said)
                self._said = said
            path = self._path.with_suffix(".lock")
            if self._lock is not None and _file_id(path) != self._locked:
                self.drop()  # with its folder the file was deleted, and nobody else sees a lock on that
            if self._lock is None:
                lock = new_lock(path)
                lock.acquire(timeout=0)
                self._lock, self._locked = lock, _file_id(path)

    def drop(self) -> None:
        """Take the mark away."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()


def watcher_of(folder: Path, destination: Destination, repo_id: str) -> Path | None:
    """Return the folder, `folder` itself or one above it, that some process pushes to the same branch, if there is one.

    Args:
        folder: Where event files are written; an absolute path without links.
        destination: Where they would go otherwise.
        repo_id: The repo's id as far as it is known.
    """
    for above in (folder, *folder.parents):
        for path, said in _marks(above):
            with contextlib.suppress(KeyError, TypeError, ValueError):
                if (
                    said["endpoint"] == destination.endpoint
                    and said["repo_type"] == destination.repo_type
                    and said["revision"] == destination.revision
                    and {destination.repo_id, repo_id} & set(said["repo_ids"])
                    and PathFilter(said["allow"], said["ignore"])(
                        (folder / _AN_EVENT_FILE).relative_to(above).as_posix()
                    )
                    and _is_held(path.with_suffix(".lock"))
                ):
                    return above
    return None


def _marks(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    with contextlib.suppress(OSError):
        for path in sorted((folder / STATE_FOLDER).glob("*.watch.json")):
            with contextlib.suppress(OSError, ValueError, RecursionError):
                yield path, disk.read_json(path, _MAX_BYTES)


def _file_id(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _is_held(path: Path) -> bool:
    for look in range(_LOOKS):
        if not is_locked(path):
            return False
        if look < _LOOKS - 1:
            time.sleep(_PAUSE_SECONDS * random.random())  # noqa: S311 - only so that two do not look in step
    return True


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
