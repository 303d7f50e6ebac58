"""What a folder holds that the Hub does not, and in which order it is pushed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hf_summary_writer.config import Destination, PushConfig
from hf_summary_writer.folder.disk import WarnOnce
from hf_summary_writer.folder.ledger import Ledger, LedgerEntry, Signature
from hf_summary_writer.folder.scan import Inventory

if TYPE_CHECKING:
    from pathlib import Path


def inventory_of(folder: Path) -> tuple[Inventory, Ledger]:
    ledger = Ledger(folder / "ledger.jsonl", Destination("https://hub", "model", "run", "main", ""))
    config = PushConfig(repo_id="run", endpoint="https://hub", allow_patterns=("*.txt",))
    return Inventory(folder, config, ledger, WarnOnce()), ledger


def test_what_waits_longest_comes_first_whenever_it_was_written(tmp_path: Path) -> None:
    inventory, ledger = inventory_of(tmp_path)
    for number, name in enumerate(["new", "newer", "c", "b", "a"]):
        path = tmp_path / f"{name}.txt"
        path.write_text(name)
        os.utime(path, (1000 + number, 1000 + number))
    before = Signature(0, 0, 0, 0)
    for name in ("a.txt", "b.txt", "c.txt"):
        ledger.record({name: LedgerEntry(before, 0)})
    order = [each.relpath for each in inventory.longest_waiting_first()]
    assert order == ["new.txt", "newer.txt", "a.txt", "b.txt", "c.txt"]
    ledger.record({"a.txt": LedgerEntry(before, 0, tail="more")})
    assert [each.relpath for each in inventory.longest_waiting_first()][-3:] == ["b.txt", "c.txt", "a.txt"]


def test_counting_what_is_missing_stops_at_a_deadline_and_says_so(tmp_path: Path) -> None:
    inventory, _ = inventory_of(tmp_path)
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("new")
    assert (inventory.pending().files, inventory.pending().unlisted) == (3, 0)
    stopped = inventory.pending(until=0.0)
    assert (stopped.files, stopped.unlisted) == (1, 1)
