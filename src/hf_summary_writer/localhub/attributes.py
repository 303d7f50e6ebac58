"""The upload mode and the ignore rules of files: `.gitattributes` and `.gitignore`."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from dulwich.attrs import parse_git_attributes
from dulwich.ignore import read_ignore_patterns

from hf_summary_writer.localhub.errors import BadRequestError
from hf_summary_writer.localhub.globs import Glob

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGE_BYTES = 10_000_000
_MAX_RULES_BYTES = 64 * 1024

# The LFS patterns of a new repo on the Hub.
_LARGE = (
    *("*.7z", "*.arrow", "*.bin", "*.bz2", "*.ckpt", "*.ftz", "*.gz", "*.h5", "*.joblib", "*.lfs.*", "*.mlmodel"),
    *("*.model", "*.msgpack", "*.npy", "*.npz", "*.onnx", "*.ot", "*.parquet", "*.pb", "*.pickle", "*.pkl", "*.pt"),
    *("*.pth", "*.rar", "*.safetensors", "saved_model/**/*", "*.tar.*", "*.tar", "*.tflite", "*.tgz", "*.wasm"),
    *("*.xz", "*.zip", "*.zst", "*tfevents*"),
)
DEFAULT_ATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in _LARGE)


class UploadRules:
    """The rules of a repo for uploaded files.

    Args:
        attributes: the content of its `.gitattributes`.
        ignore: the content of its `.gitignore`, or of the one in the request.
    """

    def __init__(self, attributes: bytes, ignore: bytes) -> None:
        if max(len(attributes), len(ignore)) > _MAX_RULES_BYTES:
            raise BadRequestError(f".gitattributes and .gitignore may have {_MAX_RULES_BYTES} bytes each.")
        self._attributes = [
            (Glob(_decode(pattern)), settings) for pattern, settings in parse_git_attributes(BytesIO(attributes))
        ]
        lines = [_decode(line) for line in read_ignore_patterns(BytesIO(ignore))]
        # Pairs of a pattern and its effect: True to ignore, False (`!`) to include a file again.
        self._ignored = [(Glob(line.removeprefix("!")), not line.startswith("!")) for line in lines]

    def is_large(self, path: str, size: int, sample: bytes) -> bool:
        """Return whether a file is kept outside Git: by its name, its size, or because it is no text."""
        if size > LARGE_BYTES:
            return True
        large: bool | None = None
        for pattern, settings in self._attributes:
            if b"filter" in settings and pattern.matches(path.split("/")):
                large = settings[b"filter"] == b"lfs"
        return not _is_text(sample) if large is None else large

    def is_ignored(self, path: str) -> bool:
        """Return whether the repo wants this file not to be uploaded."""
        parts = path.split("/")
        # As in Git, a file of an ignored folder cannot be included again.
        folders = (parts[:end] for end in range(1, len(parts)))
        return any(self._ignores(folder, is_folder=True) for folder in folders) or self._ignores(parts, is_folder=False)

    def _ignores(self, parts: Sequence[str], *, is_folder: bool) -> bool:
        for pattern, ignores in reversed(self._ignored):
            if (is_folder or not pattern.folders_only) and pattern.matches(parts):
                return ignores
        return False


def _decode(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _is_text(sample: bytes) -> bool:
    if b"\0" in sample:
        return False
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        # A character may be cut in two where the sample ends.
        return error.reason == "unexpected end of data"
    return True
