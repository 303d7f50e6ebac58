"""The store of xorbs and of the files that consist of their chunks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING

from hf_summary_writer.localhub.disk import Disk, make_folder, sharded
from hf_summary_writer.localhub.errors import BadRequestError, HubError
from hf_summary_writer.localhub.xet.hashing import (
    HASH_BYTES,
    file_hash,
    from_hex,
    is_dedup_candidate,
    range_hash,
    to_hex,
    xorb_hash,
)
from hf_summary_writer.localhub.xet.owners import add_owner, covers, readable_parts
from hf_summary_writer.localhub.xet.shard import Term, dedup_shard, pack_terms, read_shard, unpack_terms
from hf_summary_writer.localhub.xet.xorb import MAX_CHUNKS, Chunk, pack_index, read_chunks, read_data, unpack_index

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path

    from hf_summary_writer.localhub.xet.owners import MayRead
    from hf_summary_writer.localhub.xet.shard import FileEntry, Shard

# Several files per chunk, since a caller may be unable to read some of them.
_FILES_PER_CHUNK = 8


@dataclass(frozen=True, slots=True)
class RegisteredFile:
    """A file that a shard has registered."""

    xet_hash: str
    sha256: str | None
    size: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of chunks of one xorb, with the bytes that its frames take in the stored xorb."""

    xorb: str
    chunk_start: int
    chunk_end: int
    size: int
    byte_start: int
    byte_end: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """The reconstruction of a range of a file: join the pieces and drop the first `skip` bytes."""

    pieces: tuple[Piece, ...]
    skip: int

    def fetches(self) -> Iterator[Piece]:
        """Yield the parts of xorbs to fetch, which do not overlap, since clients use the first one that matches."""
        run: Piece | None = None
        for piece in sorted(self.pieces, key=lambda piece: (piece.xorb, piece.chunk_start)):
            if run and run.xorb == piece.xorb and piece.chunk_start <= run.chunk_end:
                if piece.chunk_end > run.chunk_end:
                    run = replace(run, chunk_end=piece.chunk_end, byte_end=piece.byte_end)
                continue
            if run:
                yield run
            run = piece
        if run:
            yield run


def _not_uploaded(xorb: bytes) -> BadRequestError:
    return BadRequestError(f"The xorb {to_hex(xorb)} was not uploaded.")


class XetStore:
    """Xorbs, their chunks and the files made of them, in a folder; any thread may use it."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._disk = disk
        self._xorbs = folder / "xorbs"
        self._files = folder / "files"
        self._chunks = folder / "chunks"
        for each in (self._xorbs, self._files, self._chunks):
            make_folder(each)

    def xorb_path(self, name: str) -> Path:
        """Return the path for the xorb with this hash."""
        return sharded(self._xorbs, name)

    def add_xorb(self, body: IO[bytes], path: Path, name: str, owners: Sequence[str]) -> bool:
        """Store an uploaded xorb for its owners after checking its hash; return whether it was new."""
        chunks = list(read_chunks(body))
        if not 0 < len(chunks) <= MAX_CHUNKS:
            raise BadRequestError(f"A xorb holds 1 to {MAX_CHUNKS} chunks; this one holds {len(chunks)}.")
        if to_hex(xorb_hash([(chunk.hash, chunk.size) for chunk in chunks])) != name:
            raise BadRequestError(f"The body is not the xorb {name}.")
        target = self.xorb_path(name)
        is_new = not target.exists()
        if is_new:
            body.truncate(chunks[-1].frame_end)
            body.flush()
            # The index first, so a xorb that can be found can also be read.
            self._disk.write(target.with_suffix(".index"), pack_index(chunks))
            self._disk.move(path, target)
        for owner in owners:
            add_owner(target, owner, 0, len(chunks))
        return is_new

    def add_shard(self, body: IO[bytes], owners: Sequence[str], may_read: MayRead) -> list[RegisteredFile]:
        """Register the files of an uploaded shard; its author must be able to read and prove every chunk."""
        shard = read_shard(body)
        chunks_of_files = [(file, self._check(file, may_read)) for file in shard.files]
        return [self._register(shard, file, chunks, owners) for file, chunks in chunks_of_files]

    def _check(self, file: FileEntry, may_read: MayRead) -> list[Chunk]:
        name = to_hex(file.hash)
        if len(file.proofs) != len(file.terms):
            raise BadRequestError(f"The shard gives no verification entries for the file {name}.")
        chunks: list[Chunk] = []
        indexes: dict[bytes, list[Chunk]] = {}
        for term, proof in zip(file.terms, file.proofs, strict=True):
            known = indexes.get(term.xorb) or indexes.setdefault(term.xorb, self._index(term.xorb))
            if not covers(readable_parts(self._path_of(term), may_read), term.start, term.end):
                raise _not_uploaded(term.xorb)
            part = known[term.start : term.end]
            if not term.start < term.end <= len(known) or sum(chunk.size for chunk in part) != term.size:
                raise BadRequestError(f"The shard names chunks that the xorb {to_hex(term.xorb)} does not have.")
            if range_hash(chunk.hash for chunk in part) != proof:
                raise BadRequestError(f"A verification entry of the file {name} is wrong.")
            chunks += part
        if file_hash([(chunk.hash, chunk.size) for chunk in chunks]) != file.hash:
            raise BadRequestError(f"The chunks that the shard names do not make the file {name}.")
        return chunks

    def _register(self, shard: Shard, file: FileEntry, chunks: list[Chunk], owners: Sequence[str]) -> RegisteredFile:
        name = to_hex(file.hash)
        target = sharded(self._files, name)
        if not target.exists():
            self._disk.write(target, pack_terms(file.terms))
        self._share(target, owners)
        # The newest file with a chunk comes first: a client most likely uploads a similar file next.
        candidates = {
            chunk.hash for chunk in chunks if chunk.hash in shard.candidates or is_dedup_candidate(chunk.hash)
        }
        for raw in {*candidates, *(chunk.hash for chunk in chunks[:1])}:
            path = sharded(self._chunks, to_hex(raw))
            files = [file.hash, *(known for known in self._files_with(path) if known != file.hash)]
            self._disk.write(path, b"".join(files[:_FILES_PER_CHUNK]))
        sha256 = to_hex(file.sha256) if file.sha256 else None
        return RegisteredFile(name, sha256, sum(chunk.size for chunk in chunks))

    def _share(self, file: Path, owners: Sequence[str]) -> None:
        terms = unpack_terms(file.read_bytes())
        for owner in owners:
            for term in terms:
                add_owner(self._path_of(term), owner, term.start, term.end)
            # The file last, so a file that can be found can also be read.
            add_owner(file, owner, 0, 1)

    def share_file(self, name: str, owners: Sequence[str], may_read: MayRead) -> int:
        """Add owners to a file that the caller may read, and return its size."""
        file = sharded(self._files, name)
        terms = self._terms(name, may_read)
        self._share(file, owners)
        return sum(term.size for term in terms)

    @staticmethod
    def _files_with(chunk: Path) -> list[bytes]:
        try:
            raw = chunk.read_bytes()
        except FileNotFoundError:
            return []
        return [raw[start : start + HASH_BYTES] for start in range(0, len(raw), HASH_BYTES)]

    def _path_of(self, term: Term) -> Path:
        return self.xorb_path(to_hex(term.xorb))

    def _index(self, xorb: bytes) -> list[Chunk]:
        path = self.xorb_path(to_hex(xorb))
        if not path.exists():
            raise _not_uploaded(xorb)
        return unpack_index(path.with_suffix(".index").read_bytes())

    def dedup_answer(self, chunk: str, may_read: MayRead) -> bytes | None:
        """Return a shard on the xorbs of a file that holds `chunk`; None if the caller may read no such file."""
        for raw in self._files_with(sharded(self._chunks, chunk)):
            name = to_hex(raw)
            if readable_parts(sharded(self._files, name), may_read):
                xorbs = {term.xorb: self._path_of(term) for term in self._terms(name, may_read)}
                shown = [(xorb, self._shown(xorb, path, may_read)) for xorb, path in xorbs.items()]
                return dedup_shard(shown, frozenset({from_hex(chunk)}))
        return None

    def _shown(self, xorb: bytes, path: Path, may_read: MayRead) -> list[Chunk]:
        # Positions must stay the same, so chunks that the caller may not read get a hash that matches nothing.
        parts = readable_parts(path, may_read)
        return [
            chunk if covers(parts, number, number + 1) else replace(chunk, hash=bytes(HASH_BYTES))
            for number, chunk in enumerate(self._index(xorb))
        ]

    def _terms(self, name: str, may_read: MayRead | None) -> list[Term]:
        file = sharded(self._files, name)
        if may_read and not readable_parts(file, may_read):
            raise HubError(404, f"The file {name} is not known.")
        try:
            return unpack_terms(file.read_bytes())
        except FileNotFoundError as error:
            raise HubError(404, f"The file {name} is not known.") from error

    def size(self, name: str, may_read: MayRead | None = None) -> int:
        """Return the size of the file with this Xet hash."""
        return sum(term.size for term in self._terms(name, may_read))

    def recipe(self, name: str, start: int, end: int | None, may_read: MayRead | None = None) -> Recipe:
        """Return the reconstruction of bytes `start` to `end` (exclusive; None: all) of the file with this Xet hash.

        With `may_read`, only for a caller who may read a repo that has the file.
        """
        pieces: list[Piece] = []
        position = skip = 0
        for term in self._terms(name, may_read):
            first, position = position, position + term.size
            if position <= start or (end is not None and first >= end):
                continue
            piece, left_out = self._piece(term, max(start - first, 0), term.size if end is None else end - first)
            if not pieces:
                skip = left_out
            pieces.append(piece)
        if not pieces and (start or position):
            raise HubError(416, f"The file {name} has {position} bytes.")
        return Recipe(tuple(pieces), skip)

    def _piece(self, term: Term, start: int, end: int) -> tuple[Piece, int]:
        # Whole chunks only: those of the term that hold some byte from `start` to `end` of it.
        index = self._index(term.xorb)
        chosen: list[int] = []
        position = skip = 0
        for number in range(term.start, term.end):
            first, position = position, position + index[number].size
            if position > start and first < end:
                if not chosen:
                    skip = start - first
                chosen.append(number)
        before = chosen[0]
        size = sum(index[number].size for number in chosen)
        byte_start = index[before - 1].frame_end if before else 0
        piece = Piece(to_hex(term.xorb), before, chosen[-1] + 1, size, byte_start, index[chosen[-1]].frame_end)
        return piece, skip

    def read(self, name: str, start: int, end: int) -> Generator[bytes, None, None]:
        """Yield bytes `start` to `end` (exclusive) of the file with this Xet hash, a chunk at a time."""
        recipe = self.recipe(name, start, end)
        skip, left = recipe.skip, end - start
        for piece in recipe.pieces:
            with self.xorb_path(piece.xorb).open("rb") as xorb:
                for chunk in read_data(xorb, piece.byte_start, piece.byte_end):
                    data = chunk[skip : skip + left]
                    skip, left = 0, left - len(data)
                    yield data
