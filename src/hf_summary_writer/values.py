"""What a caller's values mean: tensorboardX's reading of them, by a shorter way where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf.struct_pb2 import ListValue
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData
from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboardX.proto.tensor_pb2 import TensorProto
from tensorboardX.summary import hparams
from tensorboardX.x2num import make_np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["hparams_summaries", "number_of", "torch_scalar"]

_PLAIN_KINDS = "fiu"
_INT64 = range(-(1 << 63), 1 << 63)


def number_of(value: Any) -> float:
    """Return the one number in `value`, which may be a number, an array or a tensor of any library.

    Warns of NaN and infinity as tensorboardX does.

    Raises:
        AssertionError: There is not exactly one number.
        NotImplementedError: It is nothing tensorboardX knows.
    """
    kind = type(value)
    if (
        kind is float
        or (kind is int and value in _INT64)
        or (isinstance(value, np.generic | np.ndarray) and value.ndim == 0 and value.dtype.kind in _PLAIN_KINDS)
    ):
        number = float(value)
        # The difference is zero for what is finite.
        if number - number:
            make_np(number)
        return number
    array = make_np(value).squeeze()
    assert array.ndim == 0, "scalar should be 0D"  # noqa: S101 - what tensorboardX raises
    return float(array)


def torch_scalar(tag: str | None, number: float, *, double_precision: bool) -> Summary:
    """Return the summary that torch writes for `new_style` scalars."""
    if double_precision:
        tensor = TensorProto(dtype="DT_DOUBLE", double_val=[number])
    else:
        tensor = TensorProto(dtype="DT_FLOAT", float_val=[number])
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"))
    return Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=metadata)])


def hparams_summaries(
    hparam_dict: Mapping[str, Any], metric_dict: Mapping[str, Any], domains: Mapping[str, Sequence[Any]]
) -> list[Summary]:
    """Return the summaries that describe an experiment and open and close its session.

    Args:
        hparam_dict: Names and values of the hyperparameters.
        metric_dict: Names and values of the metrics.
        domains: The values that a hyperparameter may take, where they are known.

    Raises:
        TypeError: `domains` names something that is no hyperparameter, or its values are not of the same type.
    """
    experiment, start, end = hparams(hparam_dict, metric_dict)
    for key, values in domains.items():
        if key not in hparam_dict or not all(isinstance(value, type(hparam_dict[key])) for value in values):
            raise TypeError(f"hparam_domain_discrete[{key!r}] should list values of the type of hparam_dict[{key!r}]")
    if domains:
        plugin_data = experiment.value[0].metadata.plugin_data
        content = HParamsPluginData.FromString(plugin_data.content)
        for info in content.experiment.hparam_infos:
            if info.name in domains:
                values = ListValue()
                values.extend(domains[info.name])
                info.domain_discrete.CopyFrom(values)
        plugin_data.content = content.SerializeToString()
    return [experiment, start, end]
