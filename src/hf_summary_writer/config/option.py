"""How a field of `PushConfig` is checked, and its names elsewhere."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field
from typing import TYPE_CHECKING, Any

from hf_summary_writer.checks import NO, YES, check_switch

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import Field


@dataclass(frozen=True, slots=True)
class Option:
    """The check of a field of `PushConfig`, and its names as argument, variable and command-line option.

    Attributes:
        check: Returns a value, or raises `ValueError` or `TypeError` with a message that uses the name it is given.
        parse: Makes a value of the text of an environment variable or of a command-line option.
        writer: The argument of `HFSummaryWriter`, if it is not called as the field and that of `CommitScheduler`.
        variable: The environment variable, without its prefix.
        flags: The command-line option, in the notation of click.
        aliases: Other names that the command line takes, in the same notation.
        metavar: The name of its value in the command line's help.
        choices: The values among which the command line lets choose.
        several: Whether the command line takes it more than once.
        help: The command line's help.
        ledger: The key in the settings of a ledger; such a field is kept for later processes.
        none_is_unset: Whether `None` means that the argument was left out.
    """

    check: Callable[[Any, str], Any]
    parse: Callable[[str], Any] = str
    writer: str = ""
    variable: str = ""
    flags: str = ""
    aliases: tuple[str, ...] = ()
    metavar: str = ""
    choices: tuple[str, ...] = ()
    several: bool = False
    help: str = ""
    ledger: str = ""
    none_is_unset: bool = True


def option(check: Callable[[Any, str], Any], *, default: Any = MISSING, is_shown: bool = True, **names: Any) -> Any:
    """Return a field of `PushConfig`; `is_shown` is whether its value may be, and `names` are those of `Option`."""
    return field(default=default, repr=is_shown, metadata={"option": Option(check, **names)})


def switch(*, default: bool | None, **names: Any) -> Any:
    """Return a field of `PushConfig` that is true or false."""
    return option(check_switch, default=default, parse=_yes_or_no, **names)


def option_of(field: Field[Any]) -> Option:
    """Return the option of a field of `PushConfig`."""
    found: Option = field.metadata["option"]
    return found


def _yes_or_no(text: str) -> bool:
    if text.lower() in YES:
        return True
    if text.lower() in NO:
        return False
    raise ValueError(f"{text!r} is neither yes nor no: use 1 or 0")


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None
