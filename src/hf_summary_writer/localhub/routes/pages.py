"""Web pages, so that the links which the library prints work."""

from __future__ import annotations

import itertools
import shlex
from contextlib import suppress
from functools import partial, wraps
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.responses import RedirectResponse, Response

from hf_summary_writer.localhub import html
from hf_summary_writer.localhub.errors import EntryNotFoundError, HubError, RepoNotFoundError
from hf_summary_writer.localhub.gitrepo import HEADS, MAIN, TAGS
from hf_summary_writer.localhub.names import KINDS
from hf_summary_writer.localhub.routes import of_repo, route
from hf_summary_writer.localhub.routes.repos import iso
from hf_summary_writer.localhub.routes.trees import describe_all
from hf_summary_writer.localhub.runs.find import LoggedFile, is_run_file
from hf_summary_writer.localhub.runs.show import show_runs
from hf_summary_writer.localhub.urls import base_url, count_of, param, revision_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from starlette.requests import Request

    from hf_summary_writer.localhub.accounts import User
    from hf_summary_writer.localhub.gitrepo import Entry, GitRepo, LoggedCommit
    from hf_summary_writer.localhub.hub import Hub
    from hf_summary_writer.localhub.names import RepoId
    from hf_summary_writer.localhub.repos import ListedRepo
    from hf_summary_writer.localhub.routes import Handler

_COMMITS_SHOWN = 50
_FILES_SHOWN = 1000


def page_handler(handler: Handler) -> Handler:
    """Render the errors of a handler as web pages."""

    @wraps(handler)
    async def answer(hub: Hub, request: Request) -> Response:
        try:
            return await handler(hub, request)
        except HubError as error:
            parts = [html.tag("h1", error.status), html.tag("p", error.message)]
            if isinstance(error, RepoNotFoundError) and "authorization" not in request.headers:
                parts.append(html.tag("p", html.join(["Is it private? ", html.link("/login", "Sign in"), "."])))
            page = html.page(f"{error.status}", parts, error.status)
            page.headers.update(error.headers)
            return page

    return answer


async def repo_of_page(hub: Hub, request: Request, kind: str | None = None) -> RepoId:
    """Return the repo that a page is about."""
    try:
        return await hub.readable(request, kind, people=True)
    except RepoNotFoundError:
        # The page of a private repo is a 404 for anonymous visitors too, not a 401 as in the API.
        raise RepoNotFoundError from None


@page_handler
async def index(hub: Hub, request: Request) -> Response:
    """List the repos that the visitor may see."""
    user = hub.caller(request, people=True)

    def rows() -> list[Sequence[object]]:
        found = sorted(hub.repos.listed(partial(hub.may_read, user)), key=lambda listed: -listed.changed)
        return [(html.link(each.repo.page, each.repo.full_name), _kind(each), _time(each.changed)) for each in found]

    note = "" if user else html.join(["Private repos are not shown: ", html.link("/login", "sign in"), "."])
    parts = [html.tag("h1", "Repos"), html.table(["Repo", "Kind", "Last change"], await hub.run(rows))]
    if buckets := await hub.run(_bucket_rows, hub, user):
        parts += [html.tag("h1", "Buckets"), html.table(["Bucket", "Kind", "Last change"], buckets)]
    return html.page("Local Hub", [*parts, html.tag("p", note)])


def _bucket_rows(hub: Hub, user: User | None) -> list[Sequence[object]]:
    rows: list[tuple[float, Sequence[object]]] = []
    for bucket, settings in hub.buckets.visible(partial(hub.may_read, user)):
        # A bucket may be deleted during the iteration.
        with suppress(RepoNotFoundError):
            changed = max(settings.created, hub.buckets.files(bucket).updated / 1000)
            kind = f"{'private ' if settings.private else ''}bucket"
            rows.append((changed, (html.link(bucket.page, bucket.full_name), kind, _time(changed))))
    return [row for _, row in sorted(rows, key=lambda each: -each[0])]


def _kind(listed: ListedRepo) -> str:
    return f"{'private ' if listed.settings.private else ''}{listed.repo.kind[:-1]}"


@page_handler
async def login(hub: Hub, request: Request) -> Response:
    """Make the browser ask for the token, as the password of any user name."""
    with suppress(HubError):
        if hub.caller(request, people=True):
            return RedirectResponse("/", 302)
    headers = {"WWW-Authenticate": 'Basic realm="Local Hub: the token is the password", charset="UTF-8"'}
    raise HubError(401, "Sign in with any name; the password is the token of this Hub.", headers=headers)


@page_handler
async def repo(hub: Hub, request: Request) -> Response:
    """Show a repo: a folder's files, and the last commits."""
    shown = await repo_of_page(hub, request)
    revision = revision_of(request) if "revision" in request.path_params else MAIN
    path = param(request, "path").strip("/") if "path" in request.path_params else ""
    parts = await hub.run(_repo_parts, hub, shown, revision, path, base_url(request))
    return html.page(shown.full_name, parts)


def _repo_parts(hub: Hub, repo: RepoId, revision: str, path: str, endpoint: str) -> list[object]:
    with hub.repos.git(repo) as git:
        head = git.resolve(revision)
        folder = git.entry(head, path)
        if folder is None or not folder.is_folder:
            raise EntryNotFoundError(path)
        entries = list(itertools.islice(git.walk(folder, recursive=False), _FILES_SHOWN))
        files = describe_all(git, hub.repos.lfs(repo), head, entries, expand=False)
        commits = list(itertools.islice(git.log(head), _COMMITS_SHOWN + 1))
        refs = [*git.refs(HEADS), *git.refs(TAGS)]
        runs = hub.run_finder.find(_run_files(hub, repo, git, folder))
    kind = f"{'Private ' if hub.repos.settings(repo).private else ''}{repo.kind[:-1]}".capitalize()
    choices = [html.link(url_of(repo, "tree", name), name) for name in refs]
    here = html.join([f"{repo.full_name}/{path}".rstrip("/"), " at ", revision])
    return [
        html.tag("h1", html.link(repo.page, repo.full_name)),
        html.tag("p", html.join([kind, " · ", html.join(choices, " · ")])),
        *show_runs(runs, _view_command(repo, revision, endpoint), partial(url_of, repo, "tree", revision)),
        html.tag("h2", here),
        html.table(["File", "Size>"], [_file_row(repo, revision, file) for file in files]),
        html.tag("h2", "Commits"),
        _commits_table(repo, commits[:_COMMITS_SHOWN]),
        html.tag("p", html.link(url_of(repo, "commits", revision), "all commits")),
    ]


def _run_files(hub: Hub, repo: RepoId, git: GitRepo, folder: Entry) -> Iterator[LoggedFile]:
    lfs = hub.repos.lfs(repo)
    for entry in git.walk(folder, recursive=True):
        if not entry.is_folder and is_run_file(entry.path):
            size, pointer = git.describe(entry)
            if pointer is None:
                yield LoggedFile(entry.path, size, entry.oid, partial(_blob, git, entry))
            elif stored := lfs.find(pointer.oid):
                yield LoggedFile(entry.path, stored.size, pointer.oid, partial(lfs.read, stored, 0, stored.size))


def _blob(git: GitRepo, entry: Entry) -> list[bytes]:
    return [git.blob(entry.oid)]


def _view_command(repo: RepoId, revision: str, endpoint: str) -> str:
    options = "" if repo.kind == KINDS[0] else f" --repo-type {repo.kind[:-1]}"
    options += "" if revision == MAIN else f" --revision {shlex.quote(revision)}"
    return f"HF_ENDPOINT={endpoint} hf-summary-writer view {repo.full_name}{options}"


def _file_row(repo: RepoId, revision: str, file: dict[str, object]) -> Sequence[object]:
    path = str(file["path"])
    name = path.rpartition("/")[2]
    if file["type"] == "directory":
        return html.link(url_of(repo, "tree", revision, path), f"{name}/"), ""
    return html.link(url_of(repo, "resolve", revision, path), name), html.size(float(str(file["size"])))


def _commits_table(repo: RepoId, commits: Iterable[LoggedCommit]) -> html.Markup:
    rows = [
        (
            html.link(url_of(repo, "commit", commit.oid), commit.title or "(no title)"),
            _time(commit.time),
            commit.oid[:8],
        )
        for commit in commits
    ]
    return html.table(["Commit", "Time", "Id"], rows)


@page_handler
async def commits(hub: Hub, request: Request) -> Response:
    """List the commits of a revision, a page at a time."""
    shown, revision, number = await repo_of_page(hub, request), revision_of(request), count_of(request, "p", 0, 10**6)

    def find(git: GitRepo) -> list[LoggedCommit]:
        start = number * _COMMITS_SHOWN
        return list(itertools.islice(git.log(git.resolve(revision)), start, start + _COMMITS_SHOWN + 1))

    found = await hub.on_git(shown, find)
    parts: list[object] = [
        html.tag("h1", html.link(shown.page, shown.full_name)),
        html.tag("h2", f"Commits of {revision}"),
    ]
    parts.append(_commits_table(shown, found[:_COMMITS_SHOWN]))
    if len(found) > _COMMITS_SHOWN:
        parts.append(html.tag("p", html.link(f"{url_of(shown, 'commits', revision)}?p={number + 1}", "older commits")))
    return html.page(shown.full_name, parts)


@page_handler
async def commit(hub: Hub, request: Request) -> Response:
    """Show one commit: its message and the files that it changed."""
    shown, revision = await repo_of_page(hub, request), revision_of(request)

    def find(git: GitRepo) -> tuple[LoggedCommit, list[tuple[str, str]]]:
        found = next(git.log(git.resolve(revision)))
        return found, list(itertools.islice(git.changes(found.oid), _FILES_SHOWN))

    found, changes = await hub.on_git(shown, find)
    rows = [
        (path if change == "delete" else html.link(url_of(shown, "resolve", found.oid, path), path), change)
        for change, path in changes
    ]
    return html.page(
        found.title,
        [
            html.tag("h1", html.link(shown.page, shown.full_name)),
            html.tag("h2", found.title),
            html.tag("pre", found.description),
            html.tag(
                "p", html.join([_time(found.time), " · ", html.link(url_of(shown, "tree", found.oid), found.oid)])
            ),
            html.table(["File", "Change"], rows),
        ],
    )


@page_handler
async def blob(hub: Hub, request: Request) -> Response:
    """Redirect from the page of a file, in the client's URL form, to the file."""
    shown = await repo_of_page(hub, request)
    return RedirectResponse(url_of(shown, "resolve", revision_of(request), param(request, "path")), 302)


async def metrics(hub: Hub, request: Request) -> Response:
    """Redirect from the Training metrics tab to the page of the repo, since this Hub has no TensorBoard."""
    params = request.path_params
    if params["namespace"] in KINDS:  # a dataset or Space of that name has a page of the same form
        params.update(kind=params["namespace"], namespace=params["name"], name="tensorboard")
        return await repo(hub, request)
    return RedirectResponse(f"/{params['namespace']}/{params['name']}", 302)


def url_of(repo: RepoId, view: str, revision: str, path: str = "") -> str:
    """Return the path of a page below that of a repo."""
    return f"{repo.page}/{view}/{quote(revision, safe='')}/{quote(path)}".rstrip("/")


def _time(seconds: float) -> str:
    return iso(seconds)[:16].replace("T", " ") + " UTC"


ROUTES = [
    route("/", index, "GET"),
    route("/login", login, "GET"),
    *of_repo("/tree/{revision}", repo, "GET"),
    *of_repo("/tree/{revision}/{path:path}", repo, "GET"),
    *of_repo("/blob/{revision}/{path:path}", blob, "GET"),
    *of_repo("/commits/{revision}", commits, "GET"),
    *of_repo("/commit/{revision}", commit, "GET"),
    route("/{namespace}/{name}/tensorboard", metrics, "GET"),
    *of_repo("", repo, "GET"),
]
