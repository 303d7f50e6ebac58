"""The entries of a journal: one JSON object for each thing that a ledger notes, and what it must look like to count."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from hf_summary_writer import destination as checks
from hf_summary_writer.arrival import Arrival, CommitRecord, Settings, Signature
from hf_summary_writer.destination import Destination

__all__ = [
    "MEANINGLESS",
    "of_arrival",
    "of_commit",
    "of_destination",
    "of_repo",
    "of_settings",
    "parsed_arrival",
    "parsed_commit",
    "parsed_destination",
    "parsed_repo",
    "parsed_settings",
]

MEANINGLESS = (KeyError, TypeError, ValueError, IndexError, OverflowError, RecursionError)
"""What parsing raises where anything may stand: no JSON, JSON of another shape, and what nests or counts too far."""


def of_arrival(relpath: str, arrival: Arrival) -> dict[str, Any]:
    """Return the entry of a file that a commit delivered."""
    entry: dict[str, Any] = {"file": relpath, "signature": list(arrival.signature), "length": arrival.length}
    if arrival.tail:
        entry["tail"] = arrival.tail
    if arrival.digest:
        entry["digest"] = arrival.digest
    return entry


def parsed_arrival(entry: dict[str, Any]) -> tuple[str, Arrival]:
    """Return the path in the folder of the file of an entry, and what arrived of it."""
    relpath = _typed(entry["file"], str)
    signature = Signature(*(_typed(number, int) for number in entry["signature"]))
    length = _typed(entry["length"], int)
    if not 0 <= length <= signature.size or relpath.startswith("/") or ".." in relpath.split("/"):
        raise ValueError(relpath)
    return relpath, Arrival(
        signature, length, tail=_typed(entry.get("tail", ""), str), digest=_typed(entry.get("digest", ""), str)
    )


def of_commit(commit: CommitRecord) -> dict[str, Any]:
    """Return the entry of a commit."""
    return {"commit": asdict(commit)}


def parsed_commit(entry: dict[str, Any]) -> CommitRecord:
    """Return the commit of an entry."""
    commit = entry["commit"]
    return CommitRecord(oid=_typed(commit["oid"], str), url=_typed(commit["url"], str), time=float(commit["time"]))


def of_repo(repo_id: str | None, *, is_new: bool) -> dict[str, Any]:
    """Return the entry that names the repo, and says whether it was created for this folder."""
    return {"repo": repo_id, **({"new": True} if is_new else {})}


def parsed_repo(entry: dict[str, Any]) -> tuple[str, bool]:
    """Return the repo of an entry, and whether it was created for this folder."""
    return checks.check_repo_id(_typed(entry["repo"], str)), _typed(entry.get("new", False), bool)


def of_settings(settings: Settings) -> dict[str, Any]:
    """Return the entry of the settings."""
    return {"settings": asdict(settings)}


def parsed_settings(entry: dict[str, Any]) -> Settings:
    """Return the settings of an entry."""

    def patterns(value: Any) -> tuple[str, ...] | None:
        return None if value is None else tuple(_typed(pattern, str) for pattern in _typed(value, list))

    settings = entry["settings"]
    private = settings["private"]
    return Settings(
        allow=patterns(settings["allow"]),
        ignore=patterns(settings["ignore"]),
        private=None if private is None else _typed(private, bool),
        squash=_typed(settings["squash"], bool),
        card=_typed(settings.get("card", True), bool),
    )


def of_destination(destination: Destination) -> dict[str, Any]:
    """Return what the head of a journal says of its destination."""
    return {"destination": asdict(destination)}


def parsed_destination(entry: dict[str, Any]) -> Destination:
    """Return the destination that the head of a journal names."""
    destination = entry["destination"]
    return Destination(
        endpoint=_typed(destination["endpoint"], str),
        repo_type=checks.check_repo_type(destination["repo_type"]),
        repo_id=checks.check_repo_id(destination["repo_id"]),
        revision=checks.check_revision(destination["revision"]),
        path=checks.check_path_in_repo(destination["path"]),
    )


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(value)
    return value
