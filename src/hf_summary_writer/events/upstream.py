"""The parts of tensorboardX that this package uses besides its two writers, none of which is documented there.

A version that lacks one of the functions costs speed, and no event: without the encoders of media, these go through the
public methods of tensorboardX's `SummaryWriter` in the calling thread. Without the protocol buffers nothing can be
written, and the import raises an error that names the versions to install.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorboardX

from hf_summary_writer.events.encoding import clean_tag

__all__ = [
    "HAS_ENCODERS",
    "OBJECT_STORES",
    "TB_MAX_SPRITE_SIZE",
    "Event",
    "EventFileWriter",
    "FileWriter",
    "HistogramProto",
    "SessionLog",
    "Summary",
    "SummaryMetadata",
    "SummaryWriter",
    "TensorProto",
    "TensorShapeProto",
    "append_pbtxt",
    "audio",
    "hparams",
    "image",
    "make_histogram",
    "make_mat",
    "make_np",
    "make_sprite",
    "make_tsv",
    "mesh",
    "pr_curve",
    "scalar",
    "video",
]

try:
    from tensorboardX import FileWriter, SummaryWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import HistogramProto, Summary, SummaryMetadata
    from tensorboardX.proto.tensor_pb2 import TensorProto
    from tensorboardX.proto.tensor_shape_pb2 import TensorShapeProto
except ImportError as _error:
    from importlib.metadata import PackageNotFoundError, version  # slow to import

    try:
        _found = f"tensorboardX {version('tensorboardX')}"
    except PackageNotFoundError:
        _found = f"the tensorboardX in {tensorboardX.__file__}"
    raise ImportError(
        f"hf-summary-writer does not know {_found} ({_error}): pip install 'tensorboardX>=2.6.4,<3'"
    ) from _error


def _found_in(module: str, name: str) -> Any:
    """Return the member of that name in a module of tensorboardX; `None` if there is none."""
    try:
        return getattr(import_module(f"tensorboardX.{module}"), name, None)
    except ImportError:
        return None


audio: Any = _found_in("summary", "audio")
image: Any = _found_in("summary", "image")
make_histogram: Any = _found_in("summary", "make_histogram")
mesh: Any = _found_in("summary", "mesh")
pr_curve: Any = _found_in("summary", "pr_curve")
video: Any = _found_in("summary", "video")
TB_MAX_SPRITE_SIZE: Any = _found_in("embedding", "TB_MAX_SPRITE_SIZE")
append_pbtxt: Any = _found_in("embedding", "append_pbtxt")
make_mat: Any = _found_in("embedding", "make_mat")
make_sprite: Any = _found_in("embedding", "make_sprite")
make_tsv: Any = _found_in("embedding", "make_tsv")

_ENCODERS = (audio, image, make_histogram, mesh, pr_curve, video)
_EMBEDDING = (TB_MAX_SPRITE_SIZE, append_pbtxt, make_mat, make_sprite, make_tsv)

HAS_ENCODERS: bool = all(each is not None for each in (*_ENCODERS, *_EMBEDDING))
"""Whether media can be encoded in the background."""

hparams: Any = _found_in("summary", "hparams")

OBJECT_STORES: Any = _found_in("record_writer", "REGISTERED_FACTORIES") or ()
"""Further schemes of addresses that tensorboardX takes for object storage."""

if TYPE_CHECKING:
    from tensorboardX.event_file_writer import EventFileWriter
else:
    EventFileWriter = _found_in("event_file_writer", "EventFileWriter") or object


def _scalar(tag: str, value: float, display_name: str = "", summary_description: str = "") -> Any:
    metadata = SummaryMetadata(display_name=display_name, summary_description=summary_description)
    return Summary(value=[Summary.Value(tag=clean_tag(tag), simple_value=float(value), metadata=metadata)])


scalar: Any = _found_in("summary", "scalar") or _scalar

make_np: Any = _found_in("x2num", "make_np") or np.asarray
