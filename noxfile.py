"""The project's lanes. `nox` runs what a change must pass; `nox --list` shows the rest."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import zipfile
from pathlib import Path

import nox
from packaging.version import Version

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = False  # the lanes that name versions run on those that are installed
nox.options.sessions = [
    "lint",
    "types",
    "docs",
    "package",
    "imports",
    "tests",
    "clients",
    "other_clients",
    "integration_fast",
]

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)
THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
OTHER_PYTHONS = [version for version in PYTHONS if version != THIS_PYTHON]
WHEELS = Path("dist")
# What the lane `lint` holds to the schemas of those who read them.
SCHEMAS = {
    "github-workflows": ".github/workflows/*.yml",
    "dependabot": ".github/dependabot.yml",
    "github-issue-forms": ".github/ISSUE_TEMPLATE/[!c]*.yml",
    "github-issue-config": ".github/ISSUE_TEMPLATE/config.yml",
    "citation-file-format": "CITATION.cff",
}
# Tests wait more than they compute: for a process to start or to end, for an answer, for a fault to pass. So there are
# more workers than cores, and a worker that has nothing left to do takes over tests of another one.
IN_PARALLEL = ("-n", str(min(16, 2 * (os.cpu_count() or 2) + 1)), "--dist", "worksteal")
QUICK = "not slow and not integration and not browser and not peers"
CLIENT, TRANSPORT = f"client and {QUICK}", f"transport and {QUICK}"
# What the oldest client runs over plain LFS as well.
MAIN_PATHS = [f"tests/hub/test_{name}.py" for name in ("localhub_main_path", "scheduler", "writer")]


# The tests of what other clients, and other versions of the client, say to the local Hub.
SPEAKING = [
    f"tests/hub/test_{name}.py"
    for name in (
        "contract",
        "localhub_cli",
        "localhub_buckets",
        "localhub_filesystem",
        "localhub_names",
        "localhub_pulls",
    )
]
HUGGINGFACE_JS = "2.17.5"
# The first with buckets, and the first with today's major version; the lanes `tests` and `clients` have the newest and
# the oldest.
CLIENT_VERSIONS = ("1.5.0", "2.0.0")


def group(name: str) -> tuple[str, ...]:
    return nox.project.dependency_groups(PYPROJECT, name)


def lowest(package: str) -> str:
    """Return the requirement that asks for the lowest version of a dependency that is allowed."""
    requirement = next(line for line in PYPROJECT["project"]["dependencies"] if line.startswith(package))
    return str(requirement).split(",")[0].replace(">=", "==")


# pyenv puts a version on the path only where it was told to use it.
PYENV = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *map(str, sorted(PYENV.glob("versions/*/bin")))])

# The tests start hundreds of interpreters; without bytecode, each compiles all that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

_built: list[Path] = []


def wheel(session: nox.Session) -> Path:
    """Build the wheel, once for all sessions; it, and not the source tree, is what gets tested."""
    if not _built:
        session.install(*group("package"))
        session.run("python", "-m", "build", "--quiet", "--outdir", str(WHEELS), silent=True)
        _built.append(max(WHEELS.glob("*.whl"), key=lambda path: path.stat().st_mtime).resolve())
    return _built[0]


@nox.session
def lint(session: nox.Session) -> None:
    """Look at style, and at who imports whom."""
    session.install(*group("lint"), "-e", ".")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports")
    for schema, files in SCHEMAS.items():
        session.run("check-jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, Path().glob(files)))


@nox.session
def types(session: nox.Session) -> None:
    """Check all types, the public API's as a user writes them included."""
    session.install(*group("types"), "-e", ".[demo]", "nox")
    session.run("mypy")
    # The public API once more without the project's own settings, as a user checks it, by both checkers.
    session.run("mypy", "--strict", "--config-file=", "tests/typing/api.py")
    session.run("pyright")
    verify = ("pyright", "--verifytypes", "hf_summary_writer", "--ignoreexternal")
    session.run(*verify, env={"PYTHONPATH": "tests/typing/stubs"})


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation and check its pages in Chromium, if there is one; `nox -s docs -- serve` shows them."""
    session.install(*group("docs"), *group("test"), "-e", ".[demo]")
    session.run("mkdocs", *(session.posargs or ["build", "--strict"]), env={"NO_MKDOCS_2_WARNING": "1"})
    if not session.posargs:
        session.run("python", "-m", "pytest", "-n", "3", "--dist", "loadfile", "-m", "browser", "tests/browser")


@nox.session
def package(session: nox.Session) -> None:
    """Build the wheel and look into it."""
    path = wheel(session)
    session.install(*group("package"))
    session.run("twine", "check", "--strict", str(path), *map(str, WHEELS.glob(f"*-{path.name.split('-')[1]}.tar.gz")))
    names = set(zipfile.ZipFile(path).namelist())
    for needed in (
        "hf_summary_writer/py.typed",
        "hf_summary_writer/__init__.py",
        "hf_summary_writer/localhub/__init__.py",
    ):
        if needed not in names:
            session.error(f"{path.name} lacks {needed}")
    strangers = {name for name in names if not name.startswith(("hf_summary_writer/", "hf_summary_writer-"))}
    if strangers:
        session.error(f"{path.name} holds {sorted(strangers)}")
    session.install(str(path))
    session.run("python", "-W", "error", "-c", "import hf_summary_writer; hf_summary_writer.HFSummaryWriter")
    session.run("hf-summary-writer", "--version")


@nox.session(python=OTHER_PYTHONS, download_python="never")
def imports(session: nox.Session) -> None:
    """Import every module on the other versions of Python, as far as they are installed."""
    session.install(f"{wheel(session)}[demo]")
    session.run("python", "-W", "error", "scripts/import_all.py", env={"PYTHONSAFEPATH": "1"})


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests but the slow ones on the built wheel over Xet, and those that depend on the transport over LFS."""
    install_wheel(session)
    run_tests(session, *IN_PARALLEL, "-m", QUICK)
    if not session.posargs:
        run_tests(session, *IN_PARALLEL, "-m", TRANSPORT, transport="lfs")


@nox.session
def clients(session: nox.Session) -> None:
    """Repeat the tests that depend on the client with the oldest one that is allowed, and its main paths over LFS."""
    install_wheel(session)
    session.install(*(lowest(package) for package in ("huggingface_hub", "filelock", "tensorboardX")))
    run_tests(session, *IN_PARALLEL, "-m", CLIENT)
    if not session.posargs:
        run_tests(session, *IN_PARALLEL, *MAIN_PATHS, transport="lfs")


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure which branches of the package the tests run, the local Hub's included, and show the ones they miss."""
    session.install("-e", ".[demo]", *group("coverage"))
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *(session.posargs or [*IN_PARALLEL, "-m", QUICK]))
    session.run("coverage", "combine", "--quiet")
    with Path("coverage.md").open("w", encoding="utf-8") as page:
        session.run("coverage", "report", "--format=markdown", "--fail-under=0", stdout=page)
    # The integrations, the demo and what needs a GPU are run by other lanes.
    session.run("coverage", "report", f"--fail-under={0 if session.posargs else 90}")


@nox.session
def ordeals(session: nox.Session) -> None:
    """Run the slow tests: random kills, a failing network for a minute, a Hub under load."""
    install_wheel(session)
    run_tests(session, "-m", "slow")


@nox.session
def other_clients(session: nox.Session) -> None:
    """Try other clients on the local Hub: @huggingface/hub, datasets, and some versions of huggingface_hub.

    `nox -s other_clients -- 1.8.0 2.2.0` tries these versions instead, `-- all` the first and last of each minor one.
    """
    npm = shutil.which("npm")
    if npm is None:
        session.skip("npm is not installed")
    folder = Path(session.create_tmp(), "node")
    folder.mkdir(exist_ok=True)
    package = f"@huggingface/hub@{HUGGINGFACE_JS}"
    session.run(npm, "install", "--no-fund", "--no-audit", "--prefix", str(folder), package, external=True)
    session.install("-e", ".[localhub]", *group("test"), *group("other-clients"))
    session.run("python", "-m", "pytest", "tests/clients", env={"OTHER_CLIENTS_NODE": str(folder)})
    versions = first_and_last_versions(session) if session.posargs == ["all"] else session.posargs or CLIENT_VERSIONS
    for version in versions:
        # Later releases of Typer come without click, which `hf` imports until 1.17; from 1.18 on it excludes them.
        session.install(f"huggingface_hub=={version}", "typer<0.26")
        session.run("python", "-m", "pytest", "-n", "2", "-m", QUICK, *SPEAKING)


def first_and_last_versions(session: nox.Session) -> list[str]:
    """Return the first and the last release of each minor version of the client, from the lowest that is allowed on."""
    session.install("pip")
    listing = session.run("python", "-m", "pip", "index", "versions", "huggingface_hub", silent=True)
    _, _, numbers = str(listing).partition("Available versions:")
    known = [Version(number.strip()) for number in numbers.splitlines()[0].split(",")]
    allowed = sorted(version for version in known if version >= Version(lowest("huggingface_hub").partition("==")[2]))
    minors = [list(releases) for _, releases in itertools.groupby(allowed, lambda version: version.release[:2])]
    return [str(version) for releases in minors for version in sorted({releases[0], releases[-1]})]


@nox.session(python=PYTHONS)
def faults(session: nox.Session) -> None:
    """Run the cases of docs/reliability.md on every installed Python: `nox -s faults -- --times 3`."""
    given = list(session.posargs)
    times = 1
    if "--times" in given:
        at = given.index("--times")
        times = int(given[at + 1])
        del given[at : at + 2]
    install_wheel(session)
    for _ in range(times):
        # In another random order each time.
        session.run("python", "-m", "pytest", "-m", "faults", *IN_PARALLEL, *given, env={"PYTHONSAFEPATH": "1"})


@nox.session(python=PYTHONS)
def torch(session: nox.Session) -> None:
    """Run the tests that need PyTorch, and no other framework: its tensors, and its workers, which fork."""
    install_torch(session, group("torch"))
    session.install("-e", ".[demo]", *group("test"))
    session.run("python", "-m", "pytest", "-m", "torch", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Kill trainings on a failing network for as long as you like: `nox -s soak -- --minutes 60`."""
    session.install("-e", ".[demo]", *group("test"))
    session.run("python", "scripts/soak.py", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz the parsers of data that others write, a minute each: `nox -s fuzz -- --seconds 600 ledger`."""
    session.install("-e", ".[demo]", *group("fuzz"))
    session.run("python", "scripts/fuzzing.py", *session.posargs)


@nox.session(python=OTHER_PYTHONS)
def other_pythons(session: nox.Session) -> None:
    """Run the tests on the other versions of Python, as far as they are installed."""
    install_wheel(session)
    run_tests(session, *IN_PARALLEL, "-m", QUICK)


@nox.session
def integration_fast(session: nox.Session) -> None:
    """Train with the frameworks that are quick, and compare what the Hub holds with what their own writers leave."""
    # Here is PyTorch, which the tests of the package itself have not.
    run_frameworks(session, "integration-fast", "-m", "integration and not slow or torch", "tests")


@nox.session
def integration(session: nox.Session) -> None:
    """The same with all frameworks but those that need TensorFlow."""
    run_frameworks(session, "integration", "-m", "integration", "tests/integration")


@nox.session
def peers(session: nox.Session) -> None:
    """Run other projects' tests with our classes, and log beside their trackers, under gevent and in their servers."""
    install_torch(session, group("peers"))
    session.install("-e", ".[demo]", *group("peers"))
    session.run("python", "-m", "pytest", "-m", "peers", *(session.posargs or ["tests/integration", "tests/peers"]))


@nox.session
def integration_tensorflow(session: nox.Session) -> None:
    """The same for frameworks that write their event files with TensorFlow."""
    run_frameworks(session, "integration-tensorflow", "-m", "integration", "tests/integration")


def run_frameworks(session: nox.Session, frameworks: str, *arguments: str) -> None:
    packages = group(frameworks)
    install_torch(session, packages)
    session.install("-e", ".[demo]", *packages)
    # Most of the time is that of the trainings, which have a process of their own.
    session.run("python", "-m", "pytest", "-n", "3", "--dist", "worksteal", *arguments, *session.posargs)


def install_torch(session: nox.Session, packages: tuple[str, ...]) -> None:
    """Install PyTorch, if it is among the packages, for CPUs where there is such a build."""
    torch_alone = [package for package in packages if package.startswith("torch==")]
    if torch_alone:
        # Before the rest, and by pip, which, unlike uv, takes that build where it is offered one beside the others.
        session.install("pip")
        session.run("python", "-m", "pip", "install", "--quiet", *torch_alone)


# `nox -s scale` sets up and runs all of it: 16 minutes on two cores that others use too, and some more to install.
# `nox -s scale -- tests/scale/test_hosts.py` is the part that needs neither PyTorch nor Ray.
@nox.session(venv_backend="virtualenv")
def scale(session: nox.Session) -> None:
    """Push from many processes, hosts and trials at once: torchrun, network namespaces, a Ray cluster."""
    session.install(*group("torch"))
    session.install("-e", ".[demo]", *group("scale"))
    session.run("python", "-m", "pytest", "-m", "scale", *(session.posargs or ["tests/scale"]))


def install_wheel(session: nox.Session) -> None:
    session.install(f"{wheel(session)}[demo]", *group("test"))


def run_tests(session: nox.Session, *arguments: str, transport: str = "xet") -> None:
    # The full number of kills takes a quarter of an hour; CONTRIBUTING.md says how to ask for it.
    environment = {"TEST_KILLS": os.environ.get("TEST_KILLS", "40")}
    if transport == "lfs":
        environment["HF_HUB_DISABLE_XET"] = "1"
    # Away from the source tree, so that only the wheel can be imported.
    environment["PYTHONSAFEPATH"] = "1"
    session.run("python", "-m", "pytest", *(session.posargs or arguments), env=environment)
