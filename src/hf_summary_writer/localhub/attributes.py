"""Which files are large ones, and which are not wanted: `.gitattributes` and `.gitignore`."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from dulwich.attrs import Pattern, parse_git_attributes
from dulwich.ignore import IgnoreFilter, read_ignore_patterns

if TYPE_CHECKING:
    from collections.abc import Iterable

LARGE_BYTES = 10_000_000

# What a new repo on the Hub keeps outside Git from the start.
_LARGE = (
    *("*.7z", "*.arrow", "*.bin", "*.bz2", "*.ckpt", "*.ftz", "*.gz", "*.h5", "*.joblib", "*.lfs.*", "*.mlmodel"),
    *("*.model", "*.msgpack", "*.npy", "*.npz", "*.onnx", "*.ot", "*.parquet", "*.pb", "*.pickle", "*.pkl", "*.pt"),
    *("*.pth", "*.rar", "*.safetensors", "saved_model/**/*", "*.tar.*", "*.tar", "*.tflite", "*.tgz", "*.wasm"),
    *("*.xz", "*.zip", "*.zst", "*tfevents*"),
)
DEFAULT_ATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in _LARGE)


class UploadRules:
    """What a repo's own files say about the files to come.

    Args:
        attributes: the content of its `.gitattributes`.
        ignore: the content of its `.gitignore`, or of the one that a request brings along.
    """

    def __init__(self, attributes: bytes, ignore: bytes) -> None:
        self._attributes = [
            (Pattern(pattern), settings) for pattern, settings in parse_git_attributes(BytesIO(attributes))
        ]
        self._ignored = IgnoreFilter(read_ignore_patterns(BytesIO(ignore)))

    def is_large(self, path: str, size: int, sample: bytes) -> bool:
        """Return whether a file is kept outside Git: by its name, its size, or because it is no text."""
        if size > LARGE_BYTES:
            return True
        large: bool | None = None
        for pattern, settings in self._attributes:
            if pattern.match(path.encode()) and b"filter" in settings:
                large = settings[b"filter"] == b"lfs"
        return not _is_text(sample) if large is None else large

    def is_ignored(self, path: str) -> bool:
        """Return whether the repo wants this file not to be uploaded."""
        return any(self._ignored.is_ignored(name) for name in _with_parents(path))


def _is_text(sample: bytes) -> bool:
    if b"\0" in sample:
        return False
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        # A character may be cut in two where the sample ends.
        return error.reason == "unexpected end of data"
    return True


def _with_parents(path: str) -> Iterable[str]:
    parts = path.split("/")
    for end in range(1, len(parts)):
        yield "/".join(parts[:end]) + "/"
    yield path
