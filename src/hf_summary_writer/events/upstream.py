"""What this package takes from tensorboardX besides its two writers, none of which is documented there.

A version that lacks one of the functions costs speed, and no event: without the encoders of media, these go through the
public methods of tensorboardX's `SummaryWriter` in the calling thread. Without the protocol buffers nothing can be
written, and the import says what to install.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

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
except ImportError as error:
    try:
        _found = f"tensorboardX {version('tensorboardX')}"
    except PackageNotFoundError:
        _found = f"the tensorboardX in {tensorboardX.__file__}"
    raise ImportError(
        f"hf-summary-writer does not know {_found} ({error}): pip install 'tensorboardX>=2.6.4,<3'"
    ) from error


def _names(module: str, *names: str) -> list[Any]:
    try:
        found = import_module(f"tensorboardX.{module}")
    except ImportError:
        return [None] * len(names)
    return [getattr(found, name, None) for name in names]


_ENCODERS = _names("summary", "audio", "image", "make_histogram", "mesh", "pr_curve", "video")
_EMBEDDING = _names("embedding", "TB_MAX_SPRITE_SIZE", "append_pbtxt", "make_mat", "make_sprite", "make_tsv")

audio, image, make_histogram, mesh, pr_curve, video = _ENCODERS
TB_MAX_SPRITE_SIZE, append_pbtxt, make_mat, make_sprite, make_tsv = _EMBEDDING

HAS_ENCODERS: bool = all(each is not None for each in (*_ENCODERS, *_EMBEDDING))
"""Whether media can be encoded in the background."""

[hparams] = _names("summary", "hparams")

OBJECT_STORES: Any = _names("record_writer", "REGISTERED_FACTORIES")[0] or ()
"""Further schemes of addresses that tensorboardX takes for object storage."""

EventFileWriter: Any = _names("event_file_writer", "EventFileWriter")[0] or object


def _scalar(tag: str, value: float, display_name: str = "", summary_description: str = "") -> Any:
    metadata = SummaryMetadata(display_name=display_name, summary_description=summary_description)
    return Summary(value=[Summary.Value(tag=clean_tag(tag), simple_value=float(value), metadata=metadata)])


scalar: Any = _names("summary", "scalar")[0] or _scalar

make_np: Any = _names("x2num", "make_np")[0] or np.asarray
