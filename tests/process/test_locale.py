"""Names that are not ASCII in an ASCII locale, as in a cron job or a minimal container."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

import commands
import remote
import scripts
from hf_summary_writer.events import EventWriter

if TYPE_CHECKING:
    from pathlib import Path

    from huggingface_hub import HfApi

    from hub_process import HubProcess

NAME = "実験 é"


@pytest.fixture(autouse=True)
def ascii_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are UTF-8 in every locale")
def test_a_run_is_uploaded_under_its_name_in_any_locale(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    logdir = tmp_path / NAME
    # Escaped, since command-line arguments are encoded like file names.
    ended = scripts.run(
        r"""
        assert sys.getfilesystemencoding() == "ascii"
        with HFSummaryWriter(
            repo_id, logdir, path_in_repo="\u640d\u5931", filename_suffix=os.path.basename(logdir)
        ) as writer:
            writer.add_scalar("as the command line has the name", 1.0, 1)
        logdir = os.fsencode(logdir).decode()
        with HFSummaryWriter(repo_id, logdir, path_in_repo="\u640d\u5931") as writer:
            writer.add_scalar("\u640d\u5931/\xe9", 1.0, 1)
            writer.add_hparams({"\u8a66": "\u30a2"}, {"\u7cbe": 0.5}, name="\u8a66\u884c")
            writer.add_scalars("\u6bd4\u8f03", {"\u8a13\u7df4": 1.0}, 1)
        """,
        hub, logdir, repo_id,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert remote.files(api, repo_id) == remote.under(logdir, f"損失/{NAME}")
    for name in ("/試行/", "/比較/訓練/"):
        assert any(name in path for path in remote.files(api, repo_id))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are UTF-8 in every locale")
def test_a_folder_is_synced_under_its_name_in_any_locale(
    hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path
) -> None:
    with EventWriter(tmp_path / NAME, filename_suffix="é") as writer:
        writer.add_scalar("loss", 1.0, 1)
    asked = commands.run(hub, "sync", tmp_path / NAME, repo_id, home=tmp_path)
    assert asked.returncode == 0, asked.stderr
    assert remote.files(api, repo_id) == remote.under(tmp_path / NAME, f"tensorboard/{NAME}")


def test_a_folder_whose_name_is_not_utf8_is_uploaded(hub: HubProcess, api: HfApi, repo_id: str, tmp_path: Path) -> None:
    folder = tmp_path / "\udcff"
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("the file system accepts UTF-8 only")
    with EventWriter(folder) as writer:
        writer.add_scalar("loss", 1.0, 1)
    asked = commands.run(hub, "sync", folder, repo_id, "--into", "logs", home=tmp_path)
    assert asked.returncode == 0, asked.stderr
    assert remote.files(api, repo_id) == remote.under(folder, "logs")
