"""The arguments of a constructor that its caller left out: from an `hf://` URI, and from the environment."""

from __future__ import annotations

import functools
import inspect
import os
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ParamSpec

from hf_summary_writer.checks import PREFIX
from hf_summary_writer.config.environment import COMMITS_PER_HOUR, MODE, PUSHED_FOLDER
from hf_summary_writer.config.option import Option, option_of
from hf_summary_writer.config.push_config import PushConfig, named_in, with_uri

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

# Read by other modules.
_OTHERS = (MODE, COMMITS_PER_HOUR, PUSHED_FOLDER, f"{PREFIX}QUIET")
_OF_THE_LOCAL_HUB = f"{PREFIX}LOCALHUB_"

P = ParamSpec("P")


def complete_arguments(init: Callable[P, None]) -> Callable[P, None]:
    """Complete the arguments of a constructor that its caller left out, from an `hf://` URI and the environment.

    Parts of a URI for which `init` has no argument are added to its `**kwargs`, which go to `HFSummaryWriter`.
    """
    signature = inspect.signature(init)
    names = signature.parameters
    rest = next((name for name, each in names.items() if each.kind is each.VAR_KEYWORD), "")
    by_name: Callable[..., None] = init

    @functools.wraps(init)
    def completed(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            bound = signature.bind_partial(*args, **kwargs)
        except TypeError:
            init(*args, **kwargs)  # the interpreter's own message names the class
            raise
        given = bound.arguments
        given |= given.pop(rest, {})
        by_name(**{**given, **_completed(names, given)})

    return completed


def unknown_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with the prefix of this package that it does not read, each with the most similar one."""
    known = [*_OTHERS, *(PREFIX + name for each in fields(PushConfig) if (name := option_of(each).variable))]
    unknown = [
        name
        for name in environment
        if name.startswith(PREFIX) and name not in known and not name.startswith(_OF_THE_LOCAL_HUB)
    ]
    if not unknown:
        return {}
    import difflib  # rarely needed

    return {name: difflib.get_close_matches(name, known, 1, 0)[0] for name in unknown}


def _completed(names: Container[str], given: Mapping[str, Any]) -> dict[str, Any]:
    said = {
        name: given[name]
        for each, name in named_in(given)
        if given[name] is not None or not option_of(each).none_is_unset
    }
    repo_id = said.get("repo_id")
    if repo_id is None or (isinstance(repo_id, str) and not repo_id):
        repo_id = _from_environment("repo_id", option_of(fields(PushConfig)[0]))
    known = with_uri({**said, "repo_id": repo_id})
    found = {}
    for each in fields(PushConfig):
        option = option_of(each)
        name = each.name if each.name in names else option.writer or each.name
        if each.name in known:
            found[name] = known[each.name]
        elif name in names and name not in said and (value := _from_environment(name, option)) is not None:
            found[name] = value
    return found


def _from_environment(name: str, option: Option) -> Any:
    text = os.environ.get(PREFIX + option.variable, "").strip() if option.variable else ""
    if not text:
        return None
    try:
        return option.check(option.parse(text), name)
    except ValueError as error:
        raise ValueError(f"the environment variable {PREFIX}{option.variable} cannot be used: {error}") from None
