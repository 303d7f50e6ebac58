"""Pull requests: create, comment, change, merge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from hf_summary_writer.localhub import html
from hf_summary_writer.localhub.bodies import read_json, text_field
from hf_summary_writer.localhub.errors import BadRequestError, ForbiddenError, HubError
from hf_summary_writer.localhub.gitrepo import HEADS, MAIN
from hf_summary_writer.localhub.pulls import CLOSED, DRAFT, MERGED, OPEN, PullRequest
from hf_summary_writer.localhub.routes import of_repo, route
from hf_summary_writer.localhub.routes.pages import page_handler, repo_of_page, url_of
from hf_summary_writer.localhub.routes.repos import iso
from hf_summary_writer.localhub.urls import NUMBER, count_of, is_true

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from hf_summary_writer.localhub.accounts import User
    from hf_summary_writer.localhub.gitrepo import GitRepo
    from hf_summary_writer.localhub.hub import Hub
    from hf_summary_writer.localhub.names import RepoId

_PULLS_PER_PAGE = 50
_MAX_DIFF_BYTES = 1024 * 1024


async def create(hub: Hub, request: Request) -> Response:
    """Create a draft pull request without commits."""
    repo, user = await hub.proposable(request)
    body = await read_json(request)
    if body.get("pullRequest") is not True:
        raise ForbiddenError("The local Hub has pull requests, and no other discussions.")
    title, description = text_field(body, "title"), text_field(body, "description", "")
    async with hub.lock(repo):
        number = await hub.run(_create, hub, repo, user, title, description)
    return JSONResponse({"num": number, "pullRequest": True})


def _create(hub: Hub, repo: RepoId, user: User, title: str, description: str) -> int:
    pulls = hub.repos.pulls(repo)
    with hub.repos.git(repo) as git:
        pull = pulls.new(title, user.name, git.resolve(MAIN))
        git.set_ref(pull.ref, pull.base)
    if description:
        pull.comment(user.name, description)
    pulls.save(pull)
    return pull.number


async def listing(hub: Hub, request: Request) -> Response:
    """List the pull requests, newest first, a page at a time."""
    repo = await hub.readable(request)
    query = request.query_params
    start = count_of(request, "p", 0, 10**6) * _PULLS_PER_PAGE
    states = {"open": (DRAFT, OPEN), "closed": (CLOSED, MERGED)}.get(query.get("status", "all"))

    def find() -> list[PullRequest]:
        if query.get("type") == "discussion":
            return []
        pulls = hub.repos.pulls(repo).all()
        author = query.get("author")
        return [each for each in pulls if (not states or each.status in states) and author in (None, each.author)]

    found = await hub.run(find)
    shown_ones = [_summary(repo, pull) for pull in found[start : start + _PULLS_PER_PAGE]]
    return JSONResponse({"count": len(found), "start": start, "discussions": shown_ones})


def _summary(repo: RepoId, pull: PullRequest) -> dict[str, Any]:
    return {
        "num": pull.number,
        "title": pull.title,
        "author": {"name": pull.author},
        "createdAt": iso(pull.created),
        "status": pull.status,
        "isPullRequest": True,
        "repo": {"name": repo.full_name, "type": repo.kind[:-1]},
    }


async def details(hub: Hub, request: Request) -> Response:
    """Describe a pull request, its events, conflicts and, on request, its diff."""
    repo = await hub.readable(request)
    with_diff = is_true(request.query_params.get("diff"))

    def find() -> dict[str, Any]:
        pull = hub.repos.pulls(repo).get(_number(request))
        with hub.repos.git(repo) as git:
            commits = [_commit_event(commit) for commit in git.between(pull.base, git.resolve(pull.ref))]
            conflicts = [] if pull.status == MERGED else _conflicts(git, pull)
            diff = git.patch(pull.base, git.resolve(pull.ref), _MAX_DIFF_BYTES) if with_diff else None
        events = sorted([*pull.events, *commits], key=lambda event: event["time"])
        changes = {"base": HEADS + MAIN, "mergeCommitId": pull.merged}
        answer = {**_summary(repo, pull), "events": [_told(event) for event in events], "changes": changes}
        return {**answer, "filesWithConflicts": conflicts, "diff": diff}

    return JSONResponse(await hub.run(find))


def _number(request: Request) -> int:
    text: str = request.path_params["number"]
    if not NUMBER.fullmatch(text):
        raise HubError(404, "There is no such pull request.")
    return int(text)


def _commit_event(commit: Any) -> dict[str, Any]:
    data = {"oid": commit.oid, "subject": commit.title}
    return {"id": commit.oid[:24], "type": "commit", "author": commit.author, "time": commit.time, "data": data}


def _told(event: dict[str, Any]) -> dict[str, Any]:
    rest = {name: event[name] for name in ("id", "type", "data")}
    return {**rest, "author": {"name": event["author"]}, "createdAt": iso(event["time"])}


def _conflicts(git: GitRepo, pull: PullRequest) -> list[str]:
    """Return the files that were changed differently on the main branch."""
    theirs, ours = git.diff(pull.base, git.resolve(pull.ref)), git.diff(pull.base, git.resolve(MAIN))
    return sorted(path for path in theirs.keys() & ours.keys() if theirs[path] != ours[path])


async def comment(hub: Hub, request: Request) -> Response:
    """Comment on a pull request."""
    return await _change(hub, request, "newMessage", _comment)


async def title(hub: Hub, request: Request) -> Response:
    """Change the title of a pull request."""
    return await _change(
        hub, request, "newTitle", lambda pull, user, body: pull.set_title(user.name, text_field(body, "title"))
    )


async def status(hub: Hub, request: Request) -> Response:
    """Open or close a pull request."""
    return await _change(hub, request, "newStatus", _set_status)


def _comment(pull: PullRequest, user: User, body: dict[str, Any]) -> dict[str, Any]:
    return pull.comment(user.name, text_field(body, "comment"))


def _set_status(pull: PullRequest, user: User, body: dict[str, Any]) -> dict[str, Any]:
    wanted = body.get("status")
    if wanted not in (OPEN, CLOSED) or pull.status in (MERGED, wanted):
        raise BadRequestError(f"This pull request is {pull.status}: it cannot become {wanted!r}.")
    event = pull.set_status(user.name, wanted)
    if body.get("comment"):
        _comment(pull, user, body)
    return event


async def _change(
    hub: Hub, request: Request, name: str, act: Callable[[PullRequest, User, dict[str, Any]], dict[str, Any]]
) -> Response:
    repo, user = await hub.proposable(request)
    body = await read_json(request)

    def change() -> dict[str, Any]:
        pulls = hub.repos.pulls(repo)
        pull = pulls.get(_number(request))
        is_comment = name == "newMessage"
        if not (is_comment or user.name == pull.author or hub.accounts.may_use(user, repo.namespace)):
            raise ForbiddenError("This pull request is somebody else's.")
        event = act(pull, user, body)
        pulls.save(pull)
        return _told(event)

    async with hub.lock(repo):
        event = await hub.run(change)
    return JSONResponse({name: event})


async def merge(hub: Hub, request: Request) -> Response:
    """Merge a pull request into the main branch as one commit."""
    repo, user = await hub.writable(request), hub.require_user(request)
    body = await read_json(request)

    def commit() -> None:
        pulls = hub.repos.pulls(repo)
        pull = pulls.get(_number(request))
        if pull.status != OPEN:
            raise BadRequestError(f"This pull request is {pull.status}: only an open one can be merged.")
        with hub.repos.git(repo) as git:
            if conflicts := _conflicts(git, pull):
                raise HubError(409, f"These files have conflicts: {', '.join(conflicts[:10])}")
            proposed, head = git.resolve(pull.ref), git.resolve(MAIN)
            done = git.diff(pull.base, head)
            changes = {path: oid for path, oid in git.diff(pull.base, proposed).items() if path not in done}
            subjects = [f"- {each.title} ({each.oid})" for each in git.between(pull.base, proposed)]
            message = f"{pull.title} (#{pull.number})\n\n" + "\n".join(subjects)
            pull.merged = git.commit(HEADS + MAIN, head, lambda tree: tree.adopt(changes), message, user.name)
        if isinstance(body.get("comment"), str):
            _comment(pull, user, body)
        pull.set_status(user.name, MERGED)
        pulls.save(pull)

    async with hub.lock(repo):
        await hub.run(commit)
    return JSONResponse({"success": True})


@page_handler
async def page(hub: Hub, request: Request) -> Response:
    """Show the page of a pull request."""
    repo = await repo_of_page(hub, request)

    def find() -> tuple[PullRequest, dict[str, str | None]]:
        pull = hub.repos.pulls(repo).get(_number(request))
        with hub.repos.git(repo) as git:
            return pull, git.diff(pull.base, git.resolve(pull.ref))

    pull, changes = await hub.run(find)
    rows = [
        (html.link(url_of(repo, "resolve", pull.ref, path), path) if oid else path,) for path, oid in changes.items()
    ]
    return html.page(
        pull.title,
        [
            html.tag("h1", html.link(repo.page, repo.full_name)),
            html.tag("h2", f"Pull request {pull.number}: {pull.title}"),
            html.tag("p", f"{pull.status}, opened by {pull.author} on {iso(pull.created)[:10]}"),
            html.table(["Changed file"], rows),
        ],
    )


_REPO = "/api/{kind}/{namespace}/{name}/discussions"
ROUTES = [
    route(_REPO, create, "POST"),
    route(_REPO, listing, "GET"),
    route(_REPO + "/{number}", details, "GET"),
    route(_REPO + "/{number}/comment", comment, "POST"),
    route(_REPO + "/{number}/title", title, "POST"),
    route(_REPO + "/{number}/status", status, "POST"),
    route(_REPO + "/{number}/merge", merge, "POST"),
    *of_repo("/discussions/{number}", page, "GET"),
]
