"""Hyperparameters: what the arguments of `add_hparams` mean in either library, and the summaries made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tensorboardX.summary import hparams

from hf_summary_writer.values import is_torch, number_of

if TYPE_CHECKING:
    from tensorboardX.proto.summary_pb2 import Summary

__all__ = ["Trial", "hparams_summaries", "trial_of"]

_TENSORBOARDX = ("name", "global_step")
_TORCH = ("hparam_domain_discrete", "run_name", "global_step")
"""The arguments after the two dictionaries, in the order of each library."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What `add_hparams` is told besides the hyperparameters and metrics; names are those of the libraries."""

    name: str | None = None
    global_step: Any = None
    hparam_domain_discrete: Mapping[str, Sequence[Any]] | None = None
    run_name: str | None = None


def trial_of(positional: tuple[Any, ...], named: Mapping[str, Any]) -> Trial:
    """Tell by number and types which library's arguments these are, after the two dictionaries.

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
    # tensorboardX has no value for a tensor; torch takes its one number.
    numbers = {key: number_of(value) if is_torch(value) else value for key, value in hparam_dict.items()}
    experiment, start, end = hparams(numbers, metric_dict)
    for key, values in domains.items():
        if key not in hparam_dict or not all(isinstance(value, type(hparam_dict[key])) for value in values):
            raise TypeError(f"hparam_domain_discrete[{key!r}] should list values of the type of hparam_dict[{key!r}]")
    if domains:
        from google.protobuf.struct_pb2 import ListValue
        from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

        plugin_data = experiment.value[0].metadata.plugin_data
        content = HParamsPluginData.FromString(plugin_data.content)
        for info in content.experiment.hparam_infos:
            if info.name in domains:
                values = ListValue()
                values.extend(domains[info.name])
                info.domain_discrete.CopyFrom(values)
        plugin_data.content = content.SerializeToString()
    return [experiment, start, end]
