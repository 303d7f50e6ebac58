"""Without configured logging the library prints one line at the start and one at the end."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import textwrap
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import HfApi

import commands
import remote
import scripts
from hf_summary_writer import HFSummaryWriter, notices

if TYPE_CHECKING:
    from pathlib import Path

    from hub_process import HasEndpoint, HubProcess

TRAIN = """
import logging, os, sys
from hf_summary_writer import HFSummaryWriter
with HFSummaryWriter(sys.argv[1], logdir="runs/first") as writer:
    writer.add_scalar("loss", 1.0, 1)
"""


IN_A_KERNEL = """
import sys, types

kernel = types.SimpleNamespace(config={"IPKernelApp": {}})
for name in ("ipykernel", "ipykernel.zmqshell"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["IPython"] = types.ModuleType("IPython")
sys.modules["IPython"].get_ipython = lambda: kernel
sys.modules["ipywidgets"] = None
"""


def train(hub: HasEndpoint, here: Path, repo_id: str, body: str = TRAIN, **variables: str) -> str:
    """Run a script and return its standard error."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(body), repo_id],
        cwd=here,
        env={**scripts.environment(hub, here), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return done.stderr


def test_the_url_of_the_logs_is_printed_at_the_start_and_at_the_end(
    hub: HubProcess, repo_id: str, tmp_path: Path
) -> None:
    page = f"{hub.endpoint}/{repo_id}/tensorboard"
    assert train(hub, tmp_path, repo_id).splitlines() == [
        f"hf-summary-writer: {os.path.join('runs', 'first')} → {page} (every 5 min)",
        f"hf-summary-writer: All of {os.path.join('runs', 'first')} is at {page}",
    ]


def test_a_repo_without_a_namespace_is_printed_with_its_full_url(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    name = repo_id.rpartition("/")[2]
    first, _ = train(hub, tmp_path, name).splitlines()
    assert f"{hub.endpoint}/{api.whoami()['name']}/{name}/tensorboard" in first


class BrokenHandler(logging.Handler):
    """A handler that sends records to a server, which is away."""

    def emit(self, record: logging.LogRecord) -> None:
        raise ConnectionError(record.levelname)


@pytest.mark.faults("P14")
def test_a_log_handler_that_raises_stops_neither_the_training_nor_a_push(
    api: HfApi, repo_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = logging.getLogger("hf_summary_writer")
    monkeypatch.setattr(ours, "handlers", [BrokenHandler(), *ours.handlers])
    monkeypatch.setattr(ours, "level", logging.INFO)
    monkeypatch.setattr(ours, "disabled", False)
    with HFSummaryWriter(repo_id, tmp_path / "run", hf_api=api) as writer:
        writer.add_scalar("loss", 1.0, 1)
        assert writer.scheduler.trigger().result(30) is not None
        writer.add_scalar("loss", 2.0, 2)
    assert remote.files(api, repo_id) == remote.under(tmp_path, "tensorboard")
    assert capsys.readouterr().err == ""
    with HFSummaryWriter(repo_id, tmp_path / "other", hf_api=HfApi(commands.Nowhere.endpoint, "hf_x")) as writer:
        writer.add_scalar("loss", 1.0, 1)
    failed, missing = capsys.readouterr().err.splitlines()
    assert "could not be pushed" in failed
    assert "To send the rest: hf-summary-writer sync" in missing
    assert missing.endswith("(logging raised ConnectionError)")


def test_records_name_the_line_that_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hf_summary_writer")
    notices.logger.info("one")
    notices.logger.log(logging.INFO, "two")
    notices.announce("three")
    assert [record.funcName for record in caplog.records] == ["test_records_name_the_line_that_logs"] * 3


def test_the_notices_are_printed_once_per_process(hub: HubProcess, repo_id: str, tmp_path: Path) -> None:
    said = train(hub, tmp_path, repo_id, TRAIN + TRAIN.partition("with")[1] + TRAIN.partition("with")[2])
    assert len(said.splitlines()) == 2


@pytest.mark.parametrize(
    "variables", [{"HF_SUMMARY_WRITER_QUIET": "1"}, {"HF_SUMMARY_WRITER_MODE": "disabled"}, {"RANK": "1"}], ids=str
)
def test_the_notices_can_be_turned_off(
    hub: HubProcess, repo_id: str, tmp_path: Path, variables: dict[str, str]
) -> None:
    assert "→" not in train(hub, tmp_path, repo_id, **variables)


def test_configured_logging_is_left_alone(hub: HubProcess, repo_id: str, tmp_path: Path) -> None:
    configured = TRAIN.replace("with", "logging.basicConfig(format='<%(message)s>')\nwith", 1)
    assert train(hub, tmp_path, repo_id, configured) == ""
    said = train(hub, tmp_path, repo_id, configured.replace("(format", "(level='INFO', format"))
    assert "→" in said
    assert "hf-summary-writer:" not in said
    assert "HTTP Request" not in said
    assert "HTTP Request" in train(hub, tmp_path, repo_id, configured.replace("(format", "(level='DEBUG', format"))


def test_a_notebook_shows_notices_although_its_root_logger_has_a_handler(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("hf_summary_writer")

    def shown(text: str) -> str:
        notices.announce("%s", text)
        return capsys.readouterr().err

    assert logging.getLogger().handlers, "as in Colab, and here by pytest"
    assert shown("in a program") == ""
    monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))
    assert shown("in a notebook") == "hf-summary-writer: in a notebook\n"
    assert shown("in a notebook") == ""
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    for execution_count in (1, 2):
        shell = SimpleNamespace(execution_count=execution_count)
        monkeypatch.setattr("IPython.get_ipython", lambda shell=shell: shell, raising=False)
        assert shown("in a cell that is run again") == "hf-summary-writer: in a cell that is run again\n"
        assert shown("in a cell that is run again") == ""
    monkeypatch.setattr(logger, "level", logging.WARNING)
    assert shown("with a level of the user's") == ""


def test_warnings_name_the_library(tmp_path: Path) -> None:
    short = TRAIN.replace('"runs/first")', '"runs/first", close_timeout=0.1)')
    said = train(commands.Nowhere(), tmp_path, "user/run", short)
    assert all(line.startswith("hf-summary-writer: ") for line in said.splitlines()), said
    assert "hf-summary-writer sync" in said


@pytest.mark.parametrize("standard_error", ["sys.stderr.close()", "sys.stderr = io.IOBase()", "sys.stderr = None"])
def test_a_program_without_standard_error_trains(tmp_path: Path, standard_error: str) -> None:
    body = f"import io, sys\n{standard_error}\n{TRAIN}"
    assert train(commands.Nowhere(), tmp_path, "user/run", body, HF_SUMMARY_WRITER_CLOSE_TIMEOUT="0") == ""


def test_an_offline_run_names_the_command_at_the_start(tmp_path: Path) -> None:
    said = train(commands.Nowhere(), tmp_path, "user/run", HF_SUMMARY_WRITER_MODE="offline")
    assert said.startswith("hf-summary-writer: ")
    assert said.count("hf-summary-writer sync") == 2


def test_a_folder_passed_as_repo_id_is_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "experiments" / "1").mkdir(parents=True)
    body = "import sys; from hf_summary_writer import HFSummaryWriter; HFSummaryWriter(sys.argv[1]).close()"
    for repo_id in ("runs/exp1", "experiments/1"):
        said = train(commands.Nowhere(), tmp_path, repo_id, body, HF_SUMMARY_WRITER_MODE="offline")
        assert f"logdir='{repo_id}'" in said
    assert "logdir=" not in train(commands.Nowhere(), tmp_path, "user/run", body, HF_SUMMARY_WRITER_MODE="offline")


def test_a_second_open_writer_on_a_logdir_is_pointed_out(tmp_path: Path) -> None:
    cell = """
    from hf_summary_writer import HFSummaryWriter
    writer = HFSummaryWriter("user/run", logdir="runs/first")
    writer.add_scalar("loss", 1.0, 1)
    """
    again = textwrap.dedent(cell)
    # Offline, the scripts make no request.
    once = train(commands.Nowhere(), tmp_path, "user/run", again + "writer.close()", HF_SUMMARY_WRITER_MODE="offline")
    closed = train(
        commands.Nowhere(), tmp_path, "user/run", again + "writer.close()\n" + again, HF_SUMMARY_WRITER_MODE="offline"
    )
    twice = train(commands.Nowhere(), tmp_path, "user/run", again + again, HF_SUMMARY_WRITER_MODE="offline")
    assert [said.count("another open writer") for said in (once, closed, twice)] == [0, 0, 1]


def test_several_writers_on_a_logdir_report_the_pending_files_once(tmp_path: Path) -> None:
    body = """
    from hf_summary_writer import HFSummaryWriter
    writers = [HFSummaryWriter("user/run", logdir="runs/first") for _ in range(3)]
    for writer in writers:
        writer.add_scalar("loss", 1.0, 1)
    """
    said = train(commands.Nowhere(), tmp_path, "user/run", body, HF_SUMMARY_WRITER_CLOSE_TIMEOUT="1")
    assert said.count("Not all of") == 1, said
    assert "3 files" in said


def test_a_notebook_shows_the_url_and_the_upload_state(api: HfApi, repo_id: str, tmp_path: Path) -> None:
    with HFSummaryWriter(repo_id, logdir=tmp_path / "<run>", hf_api=api, commit_every=60) as writer:
        assert repr(writer) == f"<HFSummaryWriter of {str(tmp_path / '<run>')!r} to {repo_id!r}>"
        writer.add_scalar("loss", 1.0, 1)
        writer.scheduler.trigger().result(60)
        assert writer.url is not None
        shown = writer._repr_html_()
    assert f'<a href="{writer.url}">' in shown
    assert "all uploaded" in shown
    assert "&lt;run&gt;" in shown
    assert "<run>" not in shown


def test_a_notebook_shows_the_last_error(tmp_path: Path) -> None:
    api = _client("http://127.0.0.1:9", "hf_x")
    with HFSummaryWriter("user/run", logdir=tmp_path / "run", hf_api=api, close_timeout=0.1) as writer:
        writer.add_scalar("loss", 1.0, 1)
        assert writer.scheduler.trigger().exception(60) is not None
        shown = writer._repr_html_()
    assert "to upload" in shown
    assert "cannot be reached" in shown


def test_check_raises_before_anything_is_written(hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path) -> None:
    from hf_summary_writer import ActionNeededError, CommitScheduler

    with pytest.raises(ActionNeededError, match="Hub"):
        HFSummaryWriter(repo_id, logdir=tmp_path / "run", hf_api=_client("http://127.0.0.1:9", "hf_x"), check=True)
    with pytest.raises(ActionNeededError, match="token"):
        CommitScheduler(
            repo_id=repo_id, folder_path=tmp_path / "run", hf_api=_client(hub.endpoint, "hf_wrong"), check=True
        )
    assert not (tmp_path / "run").exists()
    before = len(hub.requests)
    HFSummaryWriter(repo_id, logdir=tmp_path / "run", hf_api=api, check=True).close()
    assert len(hub.requests) - before == 2
    assert (tmp_path / "run").exists()


def _client(endpoint: str, token: str) -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint, token=token)


def test_the_package_lists_only_its_public_names() -> None:
    import hf_summary_writer

    assert set(dir(hf_summary_writer)) == set(hf_summary_writer.__all__)
    assert hf_summary_writer.__version__
    assert all(getattr(hf_summary_writer, name) for name in hf_summary_writer.__all__)
    assert issubclass(hf_summary_writer.RateLimitError, hf_summary_writer.PushError)


def test_a_rank_other_than_0_is_silent_when_it_uploads(hub: HubProcess, repo_id: str, tmp_path: Path) -> None:
    assert train(hub, tmp_path, repo_id, RANK="1") == ""


def test_a_waiting_close_is_explained_in_a_notebook(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections and never responds
        hub = commands.Nowhere()
        hub.endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        cell = IN_A_KERNEL + TRAIN.replace('"runs/first")', '"runs/first", close_timeout=4)')
        said = train(hub, tmp_path, "user/run", cell)
    assert "Pushing 1 file" in said
    assert "Ctrl-C skips the wait, a second one interrupts the program" in said
    assert "IProgress" not in said  # as tqdm warns where there are no ipywidgets
