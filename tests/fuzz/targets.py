"""A fuzz target for each parser of foreign data: it accepts any bytes and raises if a rule is broken."""

from __future__ import annotations

import contextlib
import io
import itertools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

from hf_summary_writer.config import Destination
from hf_summary_writer.events.scalars import ScalarReader
from hf_summary_writer.events.tfrecord import boundaries, frame, is_torn, next_record
from hf_summary_writer.folder.disk import STATE_FOLDER
from hf_summary_writer.folder.ledger import Ledger, LedgerEntry, LedgerError, Signature
from hf_summary_writer.folder.patterns import DEFAULT_IGNORE_PATTERNS, PathFilter
from hf_summary_writer.folder.scan import unpushable
from hf_summary_writer.localhub.buckets.batch import judge_batch, read_batch
from hf_summary_writer.localhub.errors import HubError
from hf_summary_writer.localhub.operations import read_commit
from hf_summary_writer.localhub.xet.shard import read_shard
from hf_summary_writer.localhub.xet.xorb import read_chunks
from hf_summary_writer.push import RunState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["CORPUS", "TARGETS", "seeds"]

CORPUS = Path(__file__).parent / "corpus"

_DESTINATION = Destination("https://huggingface.co", "model", "user/run", "main", "logs/run")
_ENTRY = LedgerEntry(Signature(1, 2, 6, 4), 6, tail="0" * 16, sha256="0" * 64)


class _NoFiles:
    """An empty store."""

    def find(self, _name: str) -> None:
        return None


def _refuses_or_accepts(call: Callable[[], object]) -> None:
    try:
        call()
    except HubError as error:
        if error.status >= 500:
            raise AssertionError(f"{error.status} for a bad request") from error


def tfrecord(data: bytes) -> None:
    """Only whole records are found."""
    file = io.BytesIO(data)
    ends = [0, *boundaries(file)]
    for start, end in itertools.pairwise(ends):
        assert frame(data[start + 12 : end - 4]) == data[start:end]
    following = next_record(file, ends[-1] + 1, len(data))
    assert following is None or next(boundaries(file, following), None) is not None
    is_torn(file, ends[-1], len(data))


def ledger(data: bytes) -> None:
    """A ledger is read or set aside, and later records are read back."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, STATE_FOLDER, f"{_DESTINATION.key}.jsonl")
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        kept = Ledger(path, _DESTINATION)
        try:
            kept.refresh()
        except LedgerError:
            assert not path.exists()
        kept.record({"a": _ENTRY})
        again = Ledger(path, _DESTINATION)
        again.refresh()
        assert again.entries["a"] == _ENTRY


def scalars(data: bytes) -> None:
    """Scalars are read from event files with any bytes in their records, which are the paragraphs of `data`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "events.out.tfevents.1")
        path.write_bytes(b"".join(map(frame, data.split(b"\n\n"))))
        reader = ScalarReader(lambda _: True)
        reader.read(path)
        for each in reader.scalars().values():
            assert len(each.steps) == len(each.values) == len(each.wall_times)


def run_state(data: bytes) -> None:
    """The state of a run is refused, or read and written again unchanged."""
    with contextlib.suppress(ValueError):
        state = RunState.parse(data)
        assert RunState.parse(state.encoded()).as_dict() == state.as_dict()


def patterns(data: bytes) -> None:
    """A path matches as in the client; the lines are the path, patterns to allow and patterns to ignore."""
    path, allow, ignore = [*data.decode("utf-8", "replace").split("\n", 2), "", ""][:3]
    if unpushable(path) is not None:
        return  # not a valid path in a repo
    allowed, ignored = allow.split("|") if allow else None, ignore.split("|") if ignore else []
    theirs = filter_repo_objects([path], allow_patterns=allowed, ignore_patterns=[*ignored, *DEFAULT_IGNORE_PATTERNS])
    # Files with credentials are left out by more rules than the client's patterns.
    expected = bool(list(theirs)) and PathFilter()(path)
    assert PathFilter(allowed, ignored or None)(path) == expected


def commit(data: bytes) -> None:
    """The lines of a commit are read or refused."""
    lfs: Any = _NoFiles()
    _refuses_or_accepts(lambda: read_commit(io.BytesIO(data), lfs))


def batch(data: bytes) -> None:
    """The lines of a batch for a bucket are checked or refused."""
    files: Any = _NoFiles()
    _refuses_or_accepts(lambda: judge_batch(read_batch(data), files, lambda _: 1))


def xorb(data: bytes) -> None:
    """A xorb of Xet is read or refused."""
    _refuses_or_accepts(lambda: list(read_chunks(io.BytesIO(data))))


def shard(data: bytes) -> None:
    """A shard of Xet is read or refused."""
    _refuses_or_accepts(lambda: read_shard(io.BytesIO(data)))


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (tfrecord, ledger, scalars, run_state, patterns, commit, batch, xorb, shard)
}


def seeds(name: str) -> Iterator[bytes]:
    """Yield the inputs in the corpus of a target: valid inputs and former failures."""
    for path in sorted((CORPUS / name).iterdir()):
        yield path.read_bytes()
