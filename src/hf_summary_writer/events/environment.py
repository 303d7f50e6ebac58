"""Where a run comes from: its command without secrets, and a text with commit, versions, host and rank."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import sys

_PACKAGES = ("hf-summary-writer", "tensorboardX", "huggingface_hub", "numpy", "torch", "tensorflow", "jax")

_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_JOB_ID", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")

_GIT_SECONDS = 5.0

# The first alternative within a word too, the second only as a word of its own.
_SECRET = (
    r"(?:token(?!i[sz])|passw(?:or)?d|passphrase|pwd|secret|credential|bearer|(?:api|access|account)[-_]?key"  # noqa: S105 - no password
    r"|(?<![a-z])(?:key|pass|sig|auth|pat|jwt|cookie)(?![\w-]))"
)

# As in `--max_tokens 512` and `--token-budget=1e6`: the tokens of a language model.
_COUNTED = re.compile(r"(?i)tokens|token[-_]")
_COUNT = re.compile(r"[\d_]{1,12}(?:\.\d*)?(?:e\d{1,2}|[kKMBG])?")

_SECRET_OPTION = re.compile(rf"(?i){_SECRET}")

# As within an argument that is JSON, YAML or a query.
_SECRET_FIELD = re.compile(rf"""(?i)({_SECRET}["']?\s*[:=]\s*["']?)[^\s"',;&}}]+""")

_SECRET_VALUE = re.compile(
    r"\b(?:hf_|sk-|ghp_|github_pat_|glpat-|xox[abp]-|AKIA|AIza|nvapi-|eyJ)[\w.-]{6,}"
    r"|(?<=://)[^/@\s]+(?=@)|(?<=[Bb]earer )[^\s\"']+|(?<=(?i:authorization: basic) )[^\s\"']+"
)

_MASK = "***"


def environment_text() -> str:
    """Return the text as Markdown; secrets among the arguments of the command are masked."""
    import platform  # rarely needed, and slow to import

    rows = {"command": shlex.join(_masked([*map(str, (sys.executable, *sys.argv))]))}
    with contextlib.suppress(OSError):  # it was removed
        rows["working folder"] = os.getcwd()  # noqa: PTH109 - as a text
    rows |= {
        "Git commit": _git_commit(),
        "host": f"{socket.gethostname()} ({platform.platform()})",
        "Python": platform.python_version(),
        "packages": ", ".join(filter(None, map(_package, _PACKAGES))),
        "rank": ", ".join(f"{name}={os.environ[name]}" for name in _RANKS if name in os.environ),
    }
    lines = [f"| {name} | {_cell(value)} |" for name, value in rows.items() if value]
    return "\n".join(["| | |", "| --- | --- |", *lines])


def command_line() -> str:
    """Return the name of the script and its arguments, with secrets masked; of a notebook, its name."""
    script, *arguments = map(str, sys.argv or [""])
    name = os.path.basename(script)  # noqa: PTH119 - as a text
    if name.endswith("kernel_launcher.py"):  # of Jupyter or Colab; Jupyter's server sets the variable
        notebook = os.path.basename(os.environ.get("JPY_SESSION_NAME", ""))  # noqa: PTH119
        return shlex.join([notebook or "notebook"])
    return shlex.join([name, *_masked(arguments)])


def _cell(text: str) -> str:
    return "`" + text.replace("|", "\\|").replace("`", "'").replace("\n", " ") + "`"


def _masked(arguments: list[str]) -> list[str]:
    found: list[str] = []
    option = ""  # before its value
    for argument in arguments:
        name, equals, value = argument.partition("=")
        names_secret = name.startswith("-") or bool(equals)
        if option and not argument.startswith("-"):
            found.append(_masked_value(option, argument))
        elif equals and _SECRET_OPTION.search(name):
            found.append(f"{name}={_masked_value(name, value)}")
        else:
            found.append(_SECRET_VALUE.sub(_MASK, _SECRET_FIELD.sub(rf"\1{_MASK}", argument)))
        option = name if names_secret and not equals and _SECRET_OPTION.search(name) else ""
    return found


def _masked_value(name: str, value: str) -> str:
    is_count = _COUNT.fullmatch(value) and not _SECRET_OPTION.search(_COUNTED.sub("", name))
    return value if is_count else _MASK


def _git_commit() -> str:
    commit = _git("rev-parse", "HEAD")
    return f"{commit} with changes" if commit and _git("status", "--porcelain", "--untracked-files=no") else commit


def _git(*arguments: str) -> str:
    import subprocess  # rarely needed, as above and below

    try:
        done = subprocess.run(  # noqa: S603
            # Without the lock that `status` takes to refresh the index: the user's own command would fail meanwhile.
            ["git", "--no-optional-locks", *arguments],  # noqa: S607 - the one that the user has
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):  # no Git, or no repository
        return ""
    return done.stdout.strip()


def _package(name: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return ""
