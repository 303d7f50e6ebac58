"""Whether uploads go over Xet or over plain LFS, which needs no cache folder, little memory and no native code."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import math
import os
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import constants

from hf_summary_writer.hub.home import temporary_home
from hf_summary_writer.hub.switch import ClientSwitch
from hf_summary_writer.notices import logger

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

# The Xet client reads files in blocks of 8 MB by default. Where the Hub holds almost all of a file, each of the few new
# chunks (of 64 kB or so) keeps the block that it is a part of in memory.
_BLOCK = ("HF_XET_DATA_INGESTION_BLOCK_SIZE", "256kb")

# The Xet client ends the process when it gets no memory. Its threads reserve far more address space than they use.
_ADDRESS_SPACE_BYTES = 8 * 2**30

# The memory that an upload over Xet may take. Where a control group has less left, the kernel kills the training.
_MEMORY_BYTES = 256 * 2**20

# The first upload of a process over Xet may take this long, and longer by the time for its content. Its client repeats
# requests for minutes where a firewall keeps it from the storage, and hangs where it gets no thread.
FIRST_UPLOAD_SECONDS = 15.0

# Set while the latest upload of this process over Xet has succeeded.
has_worked: threading.Event = threading.Event()

# More than the files in the cache need at first, so that a full disk is noticed.
_CACHE_BYTES = 2**16

_CONTROL_GROUPS, _OWN_CONTROL_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def over_xet() -> bool:
    """Return whether uploads go over Xet, after making sure that the client can use it here."""
    if is_off() or importlib.util.find_spec("hf_xet") is None:
        return False
    if _lacks_address_space():
        switch_off("the address space of this process is limited (ulimit -v)")
    elif _memory_left() < _MEMORY_BYTES:
        switch_off("the memory of this process is limited (cgroups), and little of it is left")
    elif not _has_cache():
        switch_off("no folder for its cache is writable: set HF_HOME or TMPDIR to one that is")
    return not is_off()


def is_off() -> bool:
    """Return whether uploads go over plain LFS at this moment."""
    return bool(constants.HF_HUB_DISABLE_XET)


def _turn(on: bool) -> None:
    constants.HF_HUB_DISABLE_XET = not on


_switch = ClientSwitch(lambda: not is_off(), _turn)


def switched_off() -> AbstractContextManager[None]:
    """Upload over plain LFS in the `with` block, in the whole process."""
    return _switch.off()


def load() -> None:
    """Import the client of Xet, which takes seconds on a network disk."""
    importlib.import_module("hf_xet")


def switch_off(why: str) -> None:
    """Upload over plain LFS from now on, in the whole process."""
    if _switch.off_for_good():
        logger.warning("Uploading over plain LFS instead of Xet: %s", why)


def note_failure(why: str) -> None:
    """Note a failed upload where plain LFS works: after another one, or if none has succeeded, Xet is off for good."""
    if has_worked.is_set():
        has_worked.clear()
        logger.info("Uploaded over plain LFS instead of Xet, which is tried once more: %s", why)
    else:
        switch_off(why)


def set_block_size() -> None:
    """Set the size of the blocks, before the client makes its Xet session, which reads it once."""
    os.environ.setdefault(*_BLOCK)


def _lacks_address_space() -> bool:
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit == resource.RLIM_INFINITY:
            return False
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except (ImportError, OSError, ValueError):
        return False
    return limit - used < _ADDRESS_SPACE_BYTES


def _memory_left() -> float:
    """Return how many bytes the control groups of this process leave it; infinity where none sets a limit."""
    left = math.inf
    with contextlib.suppress(OSError, ValueError):
        for line in _OWN_CONTROL_GROUPS.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                left = min(left, _left_below(_CONTROL_GROUPS, path, "memory.max", "memory.current", "inactive_file"))
            elif "memory" in controllers.split(","):
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                left = min(left, _left_below(_CONTROL_GROUPS / "memory", path, *names))
    return left


def _left_below(root: Path, path: str, limit: str, usage: str, cached: str) -> float:
    """Return the free bytes of the group and the groups above it; a container may see its own as the root."""
    left = math.inf
    group = root / path.lstrip("/")
    for folder in (group, *group.parents[: len(group.parts) - len(root.parts)]):
        # A file says "max" where there is no limit, and the root has no such files.
        with contextlib.suppress(OSError, ValueError):
            most = int((folder / limit).read_text(encoding="ascii"))
            statistics = dict(line.split() for line in (folder / "memory.stat").read_text("ascii").splitlines())
            # The kernel drops cached files before it kills a process.
            left = min(left, most - int((folder / usage).read_text(encoding="ascii")) + int(statistics.get(cached, 0)))
    return left


@functools.cache
def _has_cache() -> bool:
    """Return whether the client has a folder for its cache; give it a temporary one if its own is not writable."""
    if _is_writable(Path(constants.HF_XET_CACHE)):
        return True
    # One for all processes of the user: a folder per process would never be removed.
    folder = temporary_home("xet")
    if folder is None:
        return False
    logger.info("%s is not writable: the cache of Xet is in %s", constants.HF_XET_CACHE, folder)
    os.environ["HF_XET_CACHE"] = constants.HF_XET_CACHE = str(folder)  # read when the client makes its Xet session
    return _is_writable(folder)


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            return file.write(bytes(_CACHE_BYTES)) == _CACHE_BYTES
    except OSError:
        return False
