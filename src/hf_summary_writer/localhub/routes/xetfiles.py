"""Response headers and metadata for downloads of files in Xet storage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

_INFO_TYPE = "application/vnd.xet-fileinfo+json"


def xet_headers(base: str, token_path: str, xet_hash: str) -> dict[str, str]:
    """Return the headers with the location of a file in the storage API and of its token."""
    token_url, url = f"{base}{token_path}", f"{base}/v1/reconstructions/{xet_hash}"
    links = f'<{token_url}>; rel="xet-auth", <{url}>; rel="xet-reconstruction-info"'
    return {"X-Xet-Hash": xet_hash, "X-Xet-Refresh-Route": token_url, "Link": links}


def info_response(request: Request, headers: Mapping[str, str], size: int) -> Response | None:
    """Return the metadata of a file if the client requests that instead of the content, else None."""
    if "X-Xet-Hash" not in headers or _INFO_TYPE not in request.headers.get("accept", ""):
        return None
    url = headers["Link"].rpartition("<")[2].partition(">")[0]
    places = {"refreshUrl": headers["X-Xet-Refresh-Route"], "reconstructionUrl": url}
    info = {"hash": headers["X-Xet-Hash"], "size": size, **places}
    kept = {name: value for name, value in headers.items() if not name.startswith("Content-")}
    return JSONResponse(info, headers=kept, media_type=_INFO_TYPE)
