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


def test_what_waits_longest_comes_first_whenever_it_was_written(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl", Destination("https://hub", "model", "run", "main", ""))
    config = PushConfig(repo_id="run", endpoint="https://hub", allow_patterns=("*.txt",))
    inventory = Inventory(tmp_path, config, ledger, WarnOnce())
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
