"""Web pages of buckets: training runs and files."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote

from hf_summary_writer.localhub import html
from hf_summary_writer.localhub.buckets.files import BucketFile, BucketFolder, iso
from hf_summary_writer.localhub.names import BUCKETS
from hf_summary_writer.localhub.routes import route
from hf_summary_writer.localhub.routes.pages import page_handler, repo_of_page
from hf_summary_writer.localhub.runs.find import LoggedFile, is_run_file
from hf_summary_writer.localhub.runs.show import show_runs
from hf_summary_writer.localhub.urls import base_url, param

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from hf_summary_writer.localhub.buckets.files import BucketFiles
    from hf_summary_writer.localhub.hub import Hub
    from hf_summary_writer.localhub.names import RepoId

_FILES_SHOWN = 1000


@page_handler
async def bucket(hub: Hub, request: Request) -> Response:
    """Show a bucket, or a folder of it."""
    shown = await repo_of_page(hub, request, BUCKETS)
    prefix = f"{param(request, 'prefix').strip('/')}/" if "prefix" in request.path_params else ""
    parts = await hub.run(_parts, hub, shown, prefix, base_url(request))
    return html.page(shown.full_name, parts)


def _parts(hub: Hub, bucket: RepoId, prefix: str, endpoint: str) -> list[object]:
    settings, files = hub.buckets.settings(bucket), hub.buckets.files(bucket)
    runs = hub.run_finder.find(_run_files(hub, files, prefix))
    entries, more = files.listing(prefix, "", _FILES_SHOWN, recursive=False)
    about = [
        "Private bucket" if settings.private else "Bucket",
        f"{len(files):,} file{'' if len(files) == 1 else 's'}",
        html.size(files.size),
    ]
    command = f"HF_ENDPOINT={endpoint} hf-summary-writer view hf://buckets/{bucket.full_name}"
    return [
        html.tag("h1", html.link(bucket.page, bucket.full_name)),
        html.tag("p", " · ".join(about)),
        *show_runs(runs, command, partial(_tree_url, bucket)),
        html.tag("h2", f"{bucket.full_name}/{prefix}".rstrip("/")),
        html.table(["File", "Size>", "Uploaded"], [_row(bucket, prefix, entry) for entry in entries]),
        html.tag("p", f"The first {_FILES_SHOWN} are shown." if more else ""),
    ]


def _run_files(hub: Hub, files: BucketFiles, prefix: str) -> Iterator[LoggedFile]:
    after: str | None = ""
    while after is not None:
        entries, after = files.listing(prefix, after, _FILES_SHOWN, recursive=True)
        for file in entries:
            if isinstance(file, BucketFile) and is_run_file(file.path):
                read = partial(hub.xet.read, file.xet_hash, 0, file.size)
                yield LoggedFile(file.path, file.size, file.xet_hash, read if file.size else tuple)


def _row(bucket: RepoId, prefix: str, entry: BucketFile | BucketFolder) -> Sequence[object]:
    name = entry.path.removeprefix(prefix)
    uploaded = iso(entry.uploaded)[:16].replace("T", " ") + " UTC"
    if isinstance(entry, BucketFolder):
        return html.link(_tree_url(bucket, entry.path), f"{name}/"), "", uploaded
    path = f"{bucket.page}/resolve/{quote(entry.path, safe='')}"
    return html.link(path, name), html.size(entry.size), uploaded


def _tree_url(bucket: RepoId, folder: str) -> str:
    return f"{bucket.page}/tree/{quote(folder)}"


ROUTES = [
    route("/buckets/{namespace}/{name}", bucket, "GET"),
    route("/buckets/{namespace}/{name}/tree/{prefix:path}", bucket, "GET"),
]
