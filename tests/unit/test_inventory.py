"""The files of a folder that changed since the last push, and their order."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from hf_summary_writer.config import Destination, PushConfig
from hf_summary_writer.errors import TemporaryError
from hf_summary_writer.folder.disk import STATE_FOLDER, WarnOnce
from hf_summary_writer.folder.ledger import Ledger, LedgerEntry, Signature
from hf_summary_writer.folder.scan import Inventory
from hf_summary_writer.push import linked_folders
from hf_summary_writer.push.links import unfollowed

if TYPE_CHECKING:
    from pathlib import Path


def inventory_of(folder: Path) -> tuple[Inventory, Ledger]:
    ledger = Ledger(folder / "ledger.jsonl", Destination("https://hub", "model", "run", "main", ""))
    config = PushConfig(repo_id="run", endpoint="https://hub", allow_patterns=("*.txt",))
    return Inventory(folder, config, ledger, WarnOnce()), ledger


def test_the_longest_waiting_file_comes_first_not_the_oldest(tmp_path: Path) -> None:
    inventory, ledger = inventory_of(tmp_path)
    for number, name in enumerate(["new", "newer", "c", "b", "a"]):
        path = tmp_path / f"{name}.txt"
        path.write_text(name)
        os.utime(path, (1000 + number, 1000 + number))
    before = Signature(0, 0, 0, 0)
    for name in ("a.txt", "b.txt", "c.txt"):
        ledger.record({name: LedgerEntry(before, 0)})
    order = [each.relpath for each in inventory.changed()]
    assert order == ["new.txt", "newer.txt", "a.txt", "b.txt", "c.txt"]
    ledger.record({"a.txt": LedgerEntry(before, 0, tail="more")})
    assert [each.relpath for each in inventory.changed()][-3:] == ["b.txt", "c.txt", "a.txt"]


def test_a_known_file_that_the_patterns_exclude_by_now_is_not_pushed(tmp_path: Path) -> None:
    inventory, ledger = inventory_of(tmp_path)
    (tmp_path / "a.json").write_text("new")
    ledger.record({"a.json": LedgerEntry(Signature(0, 0, 0, 0), 0)})
    assert list(inventory.changed()) == []
    assert not inventory.holds("a.json")


def test_files_with_tokens_and_a_gitignore_at_the_root_are_not_pushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["my-token", "my-tokens", ".gitignore", "a.txt"]
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "my-token"))
    monkeypatch.setenv("HF_STORED_TOKENS_PATH", str(tmp_path / "my-tokens"))
    for name in names:
        (tmp_path / name).write_text("hf_0123456789")
    ledger = Ledger(tmp_path / STATE_FOLDER / "ledger.jsonl", Destination("https://hub", "model", "run", "main", ""))
    for place, pushed in (("", ["a.txt"]), ("run", [".gitignore", "a.txt"])):
        config = PushConfig(repo_id="run", endpoint="https://hub", allow_patterns=None, path_in_repo=place)
        inventory = Inventory(tmp_path, config, ledger, WarnOnce())
        assert sorted(each.relpath for each in inventory.changed()) == pushed


def test_a_folder_that_cannot_be_listed_is_not_taken_for_uploaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    inventory, _ = inventory_of(tmp_path)
    assert inventory.pending().nothing
    monkeypatch.setattr(os, "scandir", fail)
    assert not inventory.pending().nothing
    with pytest.raises(TemporaryError, match="cannot be listed"):
        list(inventory.changed())


def test_counting_pending_files_stops_at_a_deadline_and_says_so(tmp_path: Path) -> None:
    inventory, _ = inventory_of(tmp_path)
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("new")
    assert (inventory.pending().files, inventory.pending().unlisted) == (3, 0)
    stopped = inventory.pending(until=0.0)
    assert (stopped.files, stopped.unlisted) == (1, 1)


def links(folder: Path, targets: dict[str, str]) -> None:
    for name, target in targets.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(target)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EINVAL], ids=["by nothing", "by a file"])
def test_a_link_replaced_during_the_scan_hides_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def readlink(path: str) -> str:
        raise OSError(number, os.strerror(number), path)

    inventory, _ = inventory_of(tmp_path)
    (tmp_path / "run").mkdir()
    for each in range(20):
        (tmp_path / f"{each}.txt").write_text("a")
        (tmp_path / f"link {each}").symlink_to("run")
    monkeypatch.setattr(os, "readlink", readlink)
    assert len(list(inventory.changed())) == 20


def test_a_link_to_a_folder_within_the_folder_is_followed(tmp_path: Path) -> None:
    inventory, _ = inventory_of(tmp_path)
    (tmp_path / "run" / "sub").mkdir(parents=True)
    (tmp_path / "run" / "sub" / "a.txt").write_text("a")
    (tmp_path / "run" / "b.txt").symlink_to("sub/a.txt")
    links(tmp_path, {"best": "run", "chosen/deep": "../run/sub"})
    found = {each.relpath: each.target for each in inventory.changed()}
    assert found == {
        "run/sub/a.txt": "run/sub/a.txt",
        "run/b.txt": "run/sub/a.txt",
        "best/sub/a.txt": "run/sub/a.txt",
        "best/b.txt": "run/sub/a.txt",
        "chosen/deep/a.txt": "run/sub/a.txt",
    }
    assert inventory.links_out == set()


def test_circular_links_are_followed_once(tmp_path: Path) -> None:
    inventory, _ = inventory_of(tmp_path)
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").write_text(name)
    links(tmp_path, {"self": ".", "a/up": "..", "a/self": "../a", "a/b": "../b", "b/a": "../a"})
    found = sorted(each.relpath for each in inventory.changed())
    assert found == ["a/a.txt", "a/b/b.txt", "b/a/a.txt", "b/b.txt"]
    assert inventory.links_out == {"a/b/a", "b/a/b"}  # all other links point to a folder that contains them


def test_links_to_private_folders_and_secrets_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    inventory, _ = inventory_of(tmp_path)
    for private in (".ssh", ".git", ".cache/huggingface", "home/x", "mine"):
        (tmp_path / private).mkdir(parents=True)
        (tmp_path / private / "a.txt").write_text("a")
    (tmp_path / "mine" / ".env").write_text("secret")
    targets = {"1": ".ssh", "2": ".git", "3": ".cache/huggingface", "4": "home", "5": "home/x", "6": "mine"}
    links(tmp_path, {**targets, "7.txt": ".ssh/a.txt", "8.txt": "home/x/a.txt", "9.txt": "mine/.env"})
    assert sorted(each.relpath for each in inventory.changed()) == ["6/a.txt", "mine/a.txt"]
    assert inventory.links_out == set()


def test_a_link_out_of_the_folder_that_no_repo_could_hold_is_not_named(tmp_path: Path) -> None:
    inventory, _ = inventory_of(tmp_path / "run")
    (tmp_path / "a.txt").write_text("a")
    links(tmp_path / "run", {".cache/a.txt": "../../a.txt", "a\\b.txt": "../a.txt", "b.txt": "../a.txt"})
    assert inventory.changed() == []
    assert inventory.links_out == {"b.txt"}


def test_an_outgoing_link_replaced_while_it_is_followed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def realpath(path: str) -> str:
        raise FileNotFoundError(path)

    config = PushConfig(repo_id="run", endpoint="https://hub")
    (tmp_path / "folder").mkdir()
    (tmp_path / "other").mkdir()
    links(tmp_path / "folder", {"latest": "../other"})
    monkeypatch.setattr(os.path, "realpath", realpath)
    assert list(linked_folders(tmp_path / "folder", config, {"latest"})) == []
    assert unfollowed(tmp_path / "folder", {"latest"}, [tmp_path / "other"]) == ["latest"]
