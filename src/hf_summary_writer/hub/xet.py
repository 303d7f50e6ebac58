"""Whether uploads go over Xet or over plain LFS, which needs no cache folder, little memory and no native code."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import stat
import tempfile
from pathlib import Path

from huggingface_hub import constants

__all__ = ["over_xet", "set_block_size", "switch_off"]

logger: logging.Logger = logging.getLogger("hf_summary_writer")

# The Xet client reads files in blocks of 8 MB by default. Where the Hub holds almost all of a file, each of the few new
# chunks (of 64 kB or so) keeps the block that it is a part of in memory.
_BLOCK = ("HF_XET_DATA_INGESTION_BLOCK_SIZE", "256kb")

# The Xet client ends the process when it gets no memory. Its threads reserve far more address space than they use.
_ADDRESS_SPACE_BYTES = 8 * 2**30


def over_xet() -> bool:
    """Return whether uploads go over Xet, after making sure that the client can use it here."""
    if constants.HF_HUB_DISABLE_XET or importlib.util.find_spec("hf_xet") is None:
        return False
    if _lacks_address_space():
        switch_off("the address space of this process is limited (ulimit -v)")
    elif not _has_cache():
        switch_off("no folder for its cache is writable: set HF_HOME or TMPDIR to one that is")
    return not constants.HF_HUB_DISABLE_XET


def switch_off(why: str) -> None:
    """Let the client upload over plain LFS from now on, in the whole process."""
    if not constants.HF_HUB_DISABLE_XET:
        constants.HF_HUB_DISABLE_XET = True
        logger.warning("Uploading over plain LFS instead of Xet: %s", why)


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


@functools.cache
def _has_cache() -> bool:
    """Return whether the client has a folder for its cache; give it a temporary one if its own is not writable."""
    if _is_writable(Path(constants.HF_XET_CACHE)):
        return True
    try:
        # One for all processes of the user: nobody would remove those of single processes.
        folder = Path(tempfile.gettempdir()) / f"hf-summary-writer-xet-{os.geteuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return False
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        return False  # somebody else made it
    logger.info("%s is not writable: the cache of Xet is in %s", constants.HF_XET_CACHE, folder)
    os.environ["HF_XET_CACHE"] = constants.HF_XET_CACHE = str(folder)  # read when the client makes its Xet session
    return _is_writable(folder)


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
