"""Users, their access tokens, and the namespaces that each may use."""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hf_summary_writer.localhub.errors import HubError
from hf_summary_writer.localhub.names import check_part

if TYPE_CHECKING:
    from collections.abc import Iterable

# The user of the token that every local Hub has.
OWNER = "local"
_TOKEN = re.compile(r"[!-9;-~]+")


@dataclass(frozen=True, slots=True)
class User:
    """A user with one access token.

    Args:
        name: the user's own namespace.
        token: the access token.
        may_write: whether the token gives write access.

    Raises:
        TypeError: the name or the token is no text.
        ValueError: no user or no client can have it; an empty token would be that of callers without one.
    """

    name: str
    token: str = field(repr=False)
    may_write: bool = True

    def __post_init__(self) -> None:
        _check_name(self.name)
        check_token(self.token)

    @classmethod
    def parse(cls, text: str) -> User:
        """Return the user that `NAME:TOKEN` or `NAME:TOKEN:read` describes.

        Raises:
            ValueError: the text has another form.
        """
        name, _, rest = text.partition(":")
        token, _, role = rest.partition(":")
        if not _TOKEN.fullmatch(token) or role not in ("", "read", "write"):
            raise ValueError("describe a user as NAME:TOKEN or NAME:TOKEN:read")
        return cls(name, token, role != "read")


@dataclass(frozen=True, slots=True)
class Organization:
    """A namespace that several users share.

    Raises:
        TypeError: the name is no text.
        ValueError: no namespace can have it.
    """

    name: str
    members: frozenset[str]

    def __post_init__(self) -> None:
        _check_name(self.name)

    @classmethod
    def parse(cls, text: str) -> Organization:
        """Return the organization that `NAME:USER,USER` describes.

        Raises:
            ValueError: the text has another form.
        """
        name, _, names = text.partition(":")
        members = frozenset(filter(None, names.split(",")))
        if not members:
            raise ValueError("describe an organization as NAME:USER or NAME:USER,USER")
        return cls(name, members)


def check_token(token: str) -> str:
    """Return an access token that a client can send.

    Raises:
        TypeError: it is no text.
        ValueError: it is empty or holds other characters; the message does not repeat it.
    """
    if not isinstance(token, str):
        raise TypeError(f"a token must be a str, not {type(token).__name__}")
    if not _TOKEN.fullmatch(token):
        raise ValueError("the token has characters that no token has (it is not shown here)")
    return token


def _check_name(name: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"the name of a user or organization must be a str, not {type(name).__name__}")
    try:
        check_part(name)
    except HubError as error:
        raise ValueError(error.message) from None


def new_token() -> str:
    """Return a random access token."""
    return f"hf_{secrets.token_hex(16)}"


class Accounts:
    """All users and organizations of a Hub.

    Args:
        users: the users; a user may have several tokens.
        organizations: the organizations.
        any_namespace: let every user use every namespace.
    """

    def __init__(
        self, users: Iterable[User], organizations: Iterable[Organization] = (), *, any_namespace: bool = False
    ) -> None:
        self._users = tuple(users)
        self._organizations = tuple(organizations)
        self.any_namespace = any_namespace

    def with_token(self, token: str) -> User:
        """Return the user of an access token.

        Raises:
            HubError: 401, nobody has this token.
        """
        # Compare all tokens, so the response time does not depend on which one matches.
        found = [user for user in self._users if hmac.compare_digest(token.encode(), user.token.encode())]
        if not found:
            raise HubError(401, "Invalid credentials in Authorization header")
        return found[0]

    def named(self, name: str) -> User | None:
        """Return the user with this name, or None."""
        return next((user for user in self._users if user.name == name), None)

    def knows(self, namespace: str) -> bool:
        """Return whether a namespace is that of a user or an organization."""
        names = [*(user.name for user in self._users), *(each.name for each in self._organizations)]
        return namespace.lower() in map(str.lower, names)

    def may_use(self, user: User, namespace: str) -> bool:
        """Return whether a namespace is the user's own or that of an organization of the user."""
        name = namespace.lower()
        return (
            self.any_namespace
            or name == user.name.lower()
            or any(name == each.name.lower() for each in self.organizations_of(user))
        )

    def organizations_of(self, user: User) -> list[Organization]:
        """Return the organizations that a user is a member of."""
        return [each for each in self._organizations if user.name in each.members]
