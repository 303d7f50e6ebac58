"""The device that a value is on, without importing its library."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_summary_writer.events.device.jax import JAX
from hf_summary_writer.events.device.torch import TorchDevice
from hf_summary_writer.events.tracing import keep_out_of_graphs

if TYPE_CHECKING:
    from collections.abc import Callable

    from hf_summary_writer.events.device.snapshot import Device, Snapshot

_SHARED_BACKENDS = ("cuda", "xpu")

"""Types of torch devices with streams and events; ROCm's is "cuda", too. Others are read in the call."""


def device_of(value: Any) -> Device | None:
    """Return the device that `value` is on, or `None` if it is on the host or must be read in the call."""
    device = _accelerator_of(value)
    return device if device is not None and device.can_copy(value) else None


def take_number(value: Any) -> Snapshot | None:
    """Return a snapshot of the one number in `value`, or `None` if it is on the host or must be read in the call.

    Raises:
        AssertionError: `value` has more than one element.
        RuntimeError: A graph is being captured.
    """
    device = _accelerator_of(value)
    return None if device is None else device.number(value)


def _accelerator_of(value: Any) -> Device | None:
    kind = type(value)
    finder = _finders.get(kind) or _finder_of(kind)
    return None if finder is None else finder(value)


def _on_host(_: Any) -> None:
    """Return no device."""


_finders: dict[type, Callable[[Any], Device | None]] = dict.fromkeys((int, bool, np.ndarray), _on_host)

"""By the exact type of a value: a subclass may redefine operations."""


def _finder_of(kind: type) -> Callable[[Any], Device | None] | None:
    # Only libraries that the program has imported: these imports take seconds.
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    # A library that is being imported may lack some of its names yet.
    if torch is not None and kind in (getattr(torch, "Tensor", 0), getattr(getattr(torch, "nn", 0), "Parameter", 0)):
        keep_out_of_graphs()
        return _finders.setdefault(kind, _torch_device_of)
    if jax is not None and kind.__name__ == "ArrayImpl":
        return _finders.setdefault(kind, _jax_device_of)
    return None


_torch_devices: dict[Any, TorchDevice | None] = {}


def _torch_device_of(value: Any) -> TorchDevice | None:
    if value.is_cpu:
        return None
    where = value.device
    try:
        device = _torch_devices[where]
    except KeyError:
        torch = sys.modules["torch"]
        has_streams = where.type in _SHARED_BACKENDS and hasattr(torch, where.type)
        device = _torch_devices[where] = TorchDevice(torch, getattr(torch, where.type), where) if has_streams else None
    return device


def _jax_device_of(value: Any) -> Device | None:
    if all(device.platform == "cpu" for device in value.devices()) or not value.is_fully_addressable:
        return None
    return JAX
