"""Summaries made of values and hyperparameters, as tensorboardX and torch read them."""

from __future__ import annotations

import contextlib
import numbers
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_summary_writer.events.device import Snapshot, take_number
from hf_summary_writer.events.upstream import (
    Summary,
    SummaryMetadata,
    TensorProto,
    TensorShapeProto,
    hparams,
    make_np,
)

_ARRAYS = (np.generic, np.ndarray)

_PLAIN_KINDS = "fiu"

_INT64 = range(-(1 << 63), 1 << 63)

_MOST_TENSOR_BYTES = 1 << 31

_TENSOR_FIELDS = {
    "float16": ("DT_HALF", "half_val"),
    "bfloat16": ("DT_BFLOAT16", "half_val"),
    "float32": ("DT_FLOAT", "float_val"),
    "float64": ("DT_DOUBLE", "double_val"),
    "int8": ("DT_INT8", "int_val"),
    "uint8": ("DT_UINT8", "int_val"),
    "int16": ("DT_INT16", "int_val"),
    "int32": ("DT_INT32", "int_val"),
    "int64": ("DT_INT64", "int64_val"),
    "complex64": ("DT_COMPLEX64", "scomplex_val"),
    "complex128": ("DT_COMPLEX128", "dcomplex_val"),
    "bool": ("DT_BOOL", "bool_val"),
}

"""By name of the data type: the type and the field that a tensor of it is stored in."""


def is_torch(value: Any) -> bool:
    """Return whether `value` is a tensor of torch or of a subclass, without importing that."""
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)
    return tensor is not None and isinstance(value, tensor)


def unwrapped(value: Any) -> Any:
    """Return `value`, but a NumPy array for a torch tensor, in single precision where NumPy lacks its type."""
    if not is_torch(value):
        return value
    tensor = value.detach().cpu()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    elif tensor.layout is not sys.modules["torch"].strided:
        tensor = tensor.to_dense()
    tensor = tensor.resolve_conj().resolve_neg()
    try:
        return tensor.numpy()
    except TypeError:
        return tensor.float().numpy()


def scalar_of(value: Any, *, may_be_read_later: bool = True) -> float | Snapshot:
    """Return the one number in `value`, which may be a number, an array or a tensor of any library.

    A value on a device is a snapshot. NaN and infinity are warned about as in tensorboardX.

    Raises:
        AssertionError: There is not exactly one number.
        NotImplementedError: It is nothing tensorboardX knows.
        RuntimeError: A graph is being captured on the device.
    """
    kind = type(value)
    if (
        kind is float
        or (kind is int and value in _INT64)
        or (isinstance(value, _ARRAYS) and value.ndim == 0 and value.dtype.kind in _PLAIN_KINDS)
    ):
        number = float(value)
        # The difference is zero for finite numbers.
        if number - number:
            make_np(number)
        return number
    if may_be_read_later and (snapshot := take_number(value)) is not None:
        return snapshot
    if (plain := _python_number(value)) is not None:
        return float(make_np(plain))
    array = make_np(unwrapped(value)).squeeze()
    assert array.ndim == 0, "scalar should be 0D"  # noqa: S101 - as tensorboardX
    return float(array)


def _python_number(value: Any) -> float | None:
    """Return the number in a value that torch takes and tensorboardX does not: of any kind and size, or as text."""
    if isinstance(value, np.ndarray) and value.dtype == object and value.size == 1:
        value = value.item()
    if isinstance(value, numbers.Number) and not isinstance(value, complex | np.generic):
        return float(value)  # type: ignore[arg-type]
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    return None


def torch_scalar(tag: str | None, number: float, *, double_precision: bool) -> Summary:
    """Return the summary that torch writes for `new_style` scalars."""
    if double_precision:
        tensor = TensorProto(dtype="DT_DOUBLE", double_val=[number])
    else:
        tensor = TensorProto(dtype="DT_FLOAT", float_val=[number])
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"))
    return Summary(value=[Summary.Value(tag=tag, tensor=tensor, metadata=metadata)])


def check_tensor(tag: str, tensor: Any) -> tuple[str, str, str]:
    """Return the data type of a tensor by its name, by that of TensorFlow, and the field it is stored in.

    Raises:
        ValueError: It has a data type that torch does not write, or 2 GiB or more.
    """
    dtype = str(tensor.dtype).removeprefix("torch.")
    if dtype not in _TENSOR_FIELDS:
        raise ValueError(f"{tag} has unsupported tensor dtype {dtype}")
    if int(np.prod(tuple(tensor.shape))) * tensor.dtype.itemsize >= _MOST_TENSOR_BYTES:
        raise ValueError(f"{tag} has 2 GiB or more, which no event can hold")
    return dtype, *_TENSOR_FIELDS[dtype]


def tensor_summary(tag: str, tensor: Any) -> Summary:
    """Return the summary that torch writes for a tensor, which may be of torch, NumPy or JAX.

    Torch puts halves and `uint8` where TensorBoard's reader does not find them; these are written as that reads them.

    Raises:
        ValueError: As `check_tensor`.
    """
    dtype, kind, field = check_tensor(tag, tensor)
    shape = tuple(tensor.shape)
    array = np.asarray(unwrapped(tensor)).reshape(-1)
    numbers = array.tolist()
    if dtype == "float16":
        numbers = array.view(np.uint16).tolist()
    elif dtype == "bfloat16":
        # The upper half of the bits of the same number in single precision.
        numbers = (array.astype(np.float32).view(np.uint32) >> 16).tolist()
    elif dtype.startswith("complex"):
        numbers = [part for number in numbers for part in (number.real, number.imag)]
    dimensions = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in shape])
    message = TensorProto(dtype=kind, tensor_shape=dimensions, **{field: numbers})
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="tensor"))
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=message)])


_TENSORBOARDX = ("name", "global_step")

_TORCH = ("hparam_domain_discrete", "run_name", "global_step")

"""The arguments after the two dictionaries, in the order of each library."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The arguments of `add_hparams` besides the hyperparameters and metrics; names are those of the libraries."""

    name: str | None = None
    global_step: Any = None
    hparam_domain_discrete: Mapping[str, Sequence[Any]] | None = None
    run_name: str | None = None


def trial_of(positional: tuple[Any, ...], named: Mapping[str, Any]) -> Trial:
    """Return the arguments after the two dictionaries, whose number and types tell which library's they are.

    A text in the fourth place is the step if the third names the trial, as in tensorboardX, and else torch's name.

    Raises:
        TypeError: They are neither library's.
    """
    third, fourth, *further = (*positional, None, None)[: max(2, len(positional))]
    is_torchs = bool(further) or isinstance(third, Mapping) or (not third and isinstance(fourth, str))
    names = _TORCH if is_torchs else _TENSORBOARDX
    if len(positional) > len(names):
        raise TypeError(f"add_hparams takes at most {len(names) + 2} arguments by position")
    trial = Trial(**dict(zip(names, positional, strict=False)), **named)
    if not isinstance(trial.hparam_domain_discrete, Mapping | None):
        raise TypeError("hparam_domain_discrete should be a dictionary.")
    return trial


def plain_hparams(hparam_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Return hyperparameters with Python values for scalars of NumPy and tensors of one number.

    tensorboardX leaves both out, and torch takes tensors alone.
    """
    return {key: _plain(value) for key, value in hparam_dict.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    try:
        return scalar_of(value, may_be_read_later=False) if is_torch(value) and value.numel() == 1 else value
    except (RuntimeError, TypeError, ValueError):  # complex, distributed, without a value: tensorboardX takes the text
        return value


def hparams_summaries(
    hparam_dict: Mapping[str, Any], metric_dict: Mapping[str, Any], domains: Mapping[str, Sequence[Any]]
) -> list[Summary]:
    """Return the summaries that describe an experiment and open and close its session; none if only tensorboardX can.

    Args:
        hparam_dict: Names and values of the hyperparameters.
        metric_dict: Names and values of the metrics.
        domains: The values that a hyperparameter may take, where they are known.

    Raises:
        TypeError: `domains` names something that is no hyperparameter, or its values are not of the same type.
    """
    plain = plain_hparams(hparam_dict)
    if hparams is None:
        return []
    experiment, start, end = hparams(plain, metric_dict)
    domains = {key: [_plain(value) for value in values] for key, values in domains.items()}
    for key, values in domains.items():
        if key not in plain or not all(isinstance(value, type(plain[key])) for value in values):
            raise TypeError(f"hparam_domain_discrete[{key!r}] should list values of the type of hparam_dict[{key!r}]")
    if domains:
        from google.protobuf.struct_pb2 import ListValue
        from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

        plugin_data = experiment.value[0].metadata.plugin_data
        content = HParamsPluginData.FromString(plugin_data.content)
        for info in content.experiment.hparam_infos:
            if info.name in domains:
                domain = ListValue()
                domain.extend(domains[info.name])
                info.domain_discrete.CopyFrom(domain)
        plugin_data.content = content.SerializeToString()
    return [experiment, start, end]
