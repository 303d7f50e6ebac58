"""The library works without the POSIX names that Python lacks on Windows, also for files that need a copy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import scripts

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

# Other packages are imported first: their own code for Windows would not work here.
NAMES_TAKEN_AWAY = r"""
import os, signal, sys, time
import click, filelock, google_crc32c, huggingface_hub.hf_api, numpy, socket, subprocess, tempfile, tensorboardX, tqdm
missing = {
    os: "O_DIRECTORY O_NOFOLLOW O_NONBLOCK O_CLOEXEC copy_file_range fchmod fork fstatvfs getuid geteuid getgid killpg"
    " mkfifo posix_fallocate pread pwrite register_at_fork sendfile setsid uname",
    signal: "SIGHUP SIGKILL SIGQUIT SIGUSR1 SIGALRM SIGCHLD pthread_kill pthread_sigmask setitimer sigwait",
    time: "clock_gettime",
}
for module, names in missing.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
for name in ("supports_dir_fd", "supports_fd", "supports_follow_symlinks"):
    setattr(os, name, set())
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None

def open_as_on_windows(path, flags, mode=0o777, *, dir_fd=None, real=os.open):
    if dir_fd is not None:
        raise NotImplementedError("dir_fd unavailable on this platform")
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", path)
    return real(path, flags, mode)

os.open = open_as_on_windows
"""
TRAINING = """
with HFSummaryWriter(repo_id, logdir=logdir) as writer:
    for step in range(100):
        writer.add_scalar("loss", 1 / (step + 1), step)
    writer.add_hparams({"a": 1}, {"b": 2})
assert writer.scheduler.status().all_arrived

folder = os.path.join(os.path.dirname(logdir), "files")
os.mkdir(folder)
for name, content in (("text.txt", b"a line that repeats" * 600_000), ("noise.bin", os.urandom(40_000_000))):
    with open(os.path.join(folder, name), "wb") as file:
        file.write(content)
with CommitScheduler(repo_id=repo_id, folder_path=folder, path_in_repo="files", allow_patterns="*") as scheduler:
    assert scheduler.trigger().result() is not None
assert scheduler.status().all_arrived
"""


def test_files_of_any_size_are_uploaded(hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path) -> None:
    done = scripts.run(TRAINING, hub, tmp_path / "run", repo_id, first=NAMES_TAKEN_AWAY)
    assert done.returncode == 0, done.stderr
    assert "AttributeError" not in done.stderr
    names = {path.rpartition("/")[2] for path in api.list_repo_files(repo_id)}
    assert {"text.txt", "noise.bin"} < names
    assert any("tfevents" in name for name in names)
