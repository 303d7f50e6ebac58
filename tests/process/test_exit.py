"""The content of the Hub after each way that a training script may end."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import pytest

import events
import remote
import scripts
from aftermath import assert_sound

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

LOG = """
writer = HFSummaryWriter(repo_id, logdir=logdir, commit_every=60)
for step in range(1000):
    writer.add_scalar("loss", step, step)
"""


def assert_all_on_hub(api: HfApi, repo_id: str, logdir: Path, steps: int = 1000) -> None:
    assert events.steps(logdir, "loss") == list(range(steps))
    assert remote.files(api, repo_id) == remote.under(logdir, "tensorboard/run-1")
    assert_sound(logdir)


@pytest.mark.client  # it has threads of its own at the exit
@pytest.mark.transport
@pytest.mark.faults("P4")
@pytest.mark.parametrize(
    ("more", "files"),
    [
        ("", 1),
        ('writer.add_scalars("both", {"a": 1, "b": 2})\nwriter.add_hparams({"lr": 1}, {"accuracy": 1})', 4),
        ("writer.scheduler.trigger(); time.sleep(0.3)\nwriter.add_text('last', 'word')", 1),
        ("threading.Thread(target=writer.close).start()", 1),
    ],
    ids=["one file", "several files", "in the middle of a push", "in the middle of closing"],
)
def test_a_script_without_a_close_uploads_its_last_scalar(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path, more: str, files: int
) -> None:
    ended = scripts.run(LOG + more, hub, logdir, repo_id)
    assert ended.returncode == 0, ended.stderr
    assert "WARNING" not in ended.stderr
    assert len(remote.files(api, repo_id)) == files
    assert_all_on_hub(api, repo_id, logdir)


def test_both_passes_of_an_exit_compare_the_run_with_the_hub_once(hub: HubProcess, repo_id: str, logdir: Path) -> None:
    assert scripts.run(LOG, hub, logdir, repo_id).returncode == 0
    before = len(hub.requests)
    ended = scripts.run(LOG, hub, logdir, repo_id)
    assert sum("/paths-info/" in seen.path for seen in hub.requests[before:]) == 1
    assert "unclosed" not in ended.stderr  # a request after the client's own exit handler leaves its socket open


@pytest.mark.client  # the client shows the progress bars
@pytest.mark.transport
def test_uploads_show_no_progress_bars_and_restore_them(
    hub: HubProcess, repo_id: str, logdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS")
    ended = scripts.run(
        LOG
        + """
from huggingface_hub.utils import are_progress_bars_disabled
writer.scheduler.trigger().result()
print(are_progress_bars_disabled())
""",
        hub, logdir, repo_id,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "False\n"
    assert "%|" not in ended.stderr


@pytest.mark.client  # it has threads of its own at the exit
@pytest.mark.transport
def test_events_of_a_thread_after_the_main_module_are_uploaded(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path
) -> None:
    ended = scripts.run(
        LOG
        + """
def late():
    threading.main_thread().join()
    time.sleep(0.5)
    for step in range(1000, 1100):
        writer.add_scalar("loss", step, step)
threading.Thread(target=late).start()
""",
        hub, logdir, repo_id,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert_all_on_hub(api, repo_id, logdir, steps=1100)


@pytest.mark.client  # the client uploads in threads
@pytest.mark.transport
@pytest.mark.skipif(
    (3, 12) <= sys.version_info < (3, 12, 3), reason="these versions start no thread once the interpreter exits"
)
def test_an_overridden_push_may_use_a_thread_pool_at_exit(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path
) -> None:
    ended = scripts.run(
        """
        from concurrent.futures import ThreadPoolExecutor
        class Mine(CommitScheduler):
            def push_to_hub(self):
                with ThreadPoolExecutor(2) as pool:
                    names = sorted(pool.map(str, os.listdir(self.folder_path)))
                return self.api.upload_file(
                    path_or_fileobj=repr(names).encode(), path_in_repo="names", repo_id=self.repo_id
                )
        scheduler = Mine(repo_id=repo_id, folder_path=logdir, every=60)
        scheduler.trigger().result(30)
        open(os.path.join(logdir, "late.txt"), "w").close()
        """,
        hub, logdir, repo_id,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert b"late.txt" in remote.files(api, repo_id)["names"]


@pytest.mark.faults
@pytest.mark.parametrize("registered", ["before", "after"])
def test_an_exit_handler_may_close_the_writer_again_and_log(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path, registered: str
) -> None:
    handler = """
import atexit
@atexit.register
def late():
    writer.close()
    writer.add_scalar("loss", 1000, 1000)
    writer.close()
    writer.close()
"""
    ended = scripts.run(
        (handler + LOG if registered == "before" else LOG + handler) + "writer.close()", hub, logdir, repo_id
    )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert events.steps(logdir, "loss") == list(range(1001))
    # If no thread can be started any more, a log line names the sync command.
    missing = remote.files(api, repo_id) != remote.under(logdir, "tensorboard/run-1")
    assert missing == ("hf-summary-writer sync" in ended.stderr)
    assert_sound(logdir)


@pytest.mark.faults("P6")
@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("sys.exit(3)", 3),
        ("raise KeyError('mine')", 1),
        ("t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()", 0),
    ],
)
def test_the_exit_code_of_the_script_is_unchanged(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path, ending: str, code: int
) -> None:
    ended = scripts.run(LOG + ending, hub, logdir, repo_id)
    assert ended.returncode == code, ended.stderr
    assert_all_on_hub(api, repo_id, logdir)


@pytest.mark.faults
def test_os_exit_loses_no_flushed_event(hub: HubProcess, api: HfApi, repo_id: str, logdir: Path) -> None:
    ended = scripts.run(LOG + "writer.flush(); os._exit(5)", hub, logdir, repo_id)
    assert ended.returncode == 5
    assert events.steps(logdir, "loss") == list(range(1000))
    scripts.run(
        "CommitScheduler(repo_id=repo_id, folder_path=logdir, path_in_repo='tensorboard/run-1')", hub, logdir, repo_id
    )
    assert_all_on_hub(api, repo_id, logdir)


@pytest.mark.faults("P2")
def test_sigterm_ends_the_script_at_once_and_the_next_run_uploads_the_rest(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path
) -> None:
    with scripts.start(
        LOG + "writer.flush(); print('ready', flush=True); time.sleep(60)", hub, logdir, repo_id
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=10)
    assert process.returncode == -signal.SIGTERM
    ended = scripts.run("HFSummaryWriter(repo_id, logdir=logdir)", hub, logdir, repo_id)
    assert ended.returncode == 0, ended.stderr
    assert_all_on_hub(api, repo_id, logdir)


def test_several_writers_are_uploaded_at_exit(hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path) -> None:
    ended = scripts.run(
        """
        writers = [HFSummaryWriter(repo_id, logdir=f"{logdir}-{number}") for number in range(5)]
        for writer in writers:
            writer.add_scalar("loss", 1, 1)
        """,
        hub, tmp_path / "run", repo_id,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert len(remote.files(api, repo_id)) == 5


@pytest.mark.faults("P15")
@pytest.mark.parametrize(
    "end",
    [
        """
def train():
    with writer:
        while True:
            yield
training = train()
next(training)
""",
        """
class Trainer:
    def __del__(self, writer=writer):
        writer.flush()
        writer.scheduler.trigger().result()
        writer.close()
trainer = Trainer()
""",
    ],
    ids=["a generator in a with block", "a finalizer"],
)
def test_a_writer_closed_during_interpreter_shutdown_does_not_hang(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path, end: str
) -> None:
    ended = scripts.run(LOG + end, hub, logdir, repo_id)
    assert ended.returncode == 0, ended.stderr
    assert_all_on_hub(api, repo_id, logdir)


@pytest.mark.faults("P15")
def test_events_logged_during_interpreter_shutdown_are_on_disk_and_named(
    hub: HubProcess, repo_id: str, logdir: Path
) -> None:
    end = """
class Trainer:
    def __del__(self, writer=writer):
        writer.add_scalar("loss", 1000, 1000)
        writer.close()
trainer = Trainer()
"""
    ended = scripts.run(LOG + end, hub, logdir, repo_id)
    assert ended.returncode == 0, ended.stderr
    assert events.steps(logdir, "loss") == list(range(1001))
    assert "hf-summary-writer sync" in ended.stderr


LATE_HANDLER = "import atexit; atexit.register(lambda: writer.add_scalar('loss', 1000, 1000))\n"
LATE_FINALIZER = """
class Late:
    def __del__(self, writer=writer):
        writer.add_scalar("loss", 1000, 1000)
late = Late()
"""
LATE_THREAD = """
last, logged = threading.Event(), threading.Event()
def log():
    last.wait()
    writer.add_scalar("loss", 1000, 1000)
    logged.set()
threading.Thread(target=log, daemon=True).start()
"""
WAIT_FOR_THREAD = "import atexit; atexit.register(lambda: (last.set(), logged.wait()))\n"


@pytest.mark.faults("P17")
@pytest.mark.parametrize(
    ("first", "late"),
    [(LATE_HANDLER, ""), ("", LATE_FINALIZER), (WAIT_FOR_THREAD, LATE_THREAD)],
    ids=["an exit handler", "a finalizer", "a daemon thread"],
)
@pytest.mark.parametrize("closed", ["", "writer.close()\n"], ids=["open", "closed"])
def test_events_logged_after_the_last_push_at_exit_are_on_disk_and_named(
    hub: HubProcess, repo_id: str, logdir: Path, first: str, late: str, closed: str
) -> None:
    ended = scripts.run(LOG + late + closed, hub, logdir, repo_id, first=first)
    assert ended.returncode == 0, ended.stderr
    assert events.steps(logdir, "loss") == list(range(1001))
    assert ended.stderr.count("hf-summary-writer sync") == 1, ended.stderr


@pytest.mark.faults("P17")
def test_an_event_logged_while_another_thread_closes_the_writer_is_uploaded(
    hub: HubProcess, api: HfApi, repo_id: str, logdir: Path
) -> None:
    held = """
queue, prefix = writer._queue, writer._prefix("loss")
writer.close()
queue.put((time.time(), prefix, 1000.0, 1000))  # as a thread that was suspended before this line
"""
    ended = scripts.run(LOG + held, hub, logdir, repo_id)
    assert ended.returncode == 0, ended.stderr
    assert_all_on_hub(api, repo_id, logdir, steps=1001)


def test_the_stall_watch_does_not_keep_the_process_alive(hub: HubProcess, tmp_path: Path) -> None:
    body = """
        writer = HFSummaryWriter("user/runs", logdir, on_stall=print, stall_after=3600)
        writer.add_scalar("loss", 1.0, 1)
    """
    ended = scripts.run(
        body, hub, tmp_path / "run", "", first="import os; os.environ['HF_SUMMARY_WRITER_MODE']='disabled'"
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
