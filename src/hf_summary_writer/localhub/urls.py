"""Parsers for the parts of a URL."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from starlette.responses import JSONResponse

from hf_summary_writer.localhub.errors import BadRequestError
from hf_summary_writer.localhub.lfs import SHA256

if TYPE_CHECKING:
    from starlette.requests import Request


# Not more digits: Python refuses to read thousands of them, and no number here needs 19.
NUMBER = re.compile(r"[0-9]{1,18}")


def param(request: Request, name: str) -> str:
    """Return a decoded part of the path; routes match on the encoded path, where %2F is no separator."""
    try:
        return unquote(request.path_params[name], errors="strict")
    except UnicodeDecodeError as error:
        raise BadRequestError("The path of the URL is not UTF-8.") from error


def revision_of(request: Request) -> str:
    """Return the revision that the path names."""
    return param(request, "revision")


def hash_of(request: Request, name: str = "hash") -> str:
    """Return the hash, 64 hexadecimal digits, that the path names."""
    value: str = request.path_params[name]
    if not SHA256.fullmatch(value):
        raise BadRequestError(f"{value!r} is no hash: 64 hexadecimal digits, in lower case.")
    return value


def count_of(request: Request, name: str, default: int, largest: int) -> int:
    """Return a number that the query gives."""
    value = request.query_params.get(name, str(default))
    if not NUMBER.fullmatch(value):
        raise BadRequestError(f"{name!r} must be a number.")
    return min(int(value), largest)


def is_true(value: object) -> bool:
    """Return whether a field of a form or query is true."""
    return str(value).lower() in ("1", "true")


def base_url(request: Request) -> str:
    """Return the base URL that the client used, so that links work through a proxy too."""
    host = request.headers.get("host") or "{}:{}".format(*(request.scope.get("server") or ("127.0.0.1", 80)))
    return f"{request.url.scheme}://{host}"


def limit_of(request: Request, default: int, largest: int) -> int:
    """Return how many items of a list the query wants on a page."""
    return max(1, count_of(request, "limit", default, largest))


def page_response(request: Request, items: list[dict[str, Any]], **following: str | int | None) -> JSONResponse:
    """Return a page of a list, with a link to the next one if the parameter of the query that leads there is given."""
    is_last = None in following.values()
    return JSONResponse(items, headers=None if is_last else next_page(request, **following))


def next_page(request: Request, **changes: str | int | None) -> dict[str, str]:
    """Return the header that leads to the next page of an answer."""
    query = [(key, value) for key, value in request.query_params.multi_items() if key not in changes]
    query += [(key, str(value)) for key, value in changes.items()]
    text = "&".join(f"{quote(key)}={quote(value, safe='')}" for key, value in query)
    return {"Link": f'<{base_url(request)}{request.url.path}?{text}>; rel="next"'}
