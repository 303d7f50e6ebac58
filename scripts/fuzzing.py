"""Fuzz the parsers of untrusted data, with atheris if it is installed, else with Hypothesis.

python scripts/fuzzing.py --seconds 60 tfrecord ledger

An input that breaks a parser is saved in `tests/fuzz/corpus/<parser>/`, from which the tests read it.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path.insert(0, str(TESTS))

CORPUS = TESTS / "fuzz" / "corpus"
PARSERS = sorted(folder.name for folder in CORPUS.iterdir())


def main() -> None:
    """Fuzz the named parsers, or all of them, one after the other; fail if one breaks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="PARSER", help=f"of {', '.join(PARSERS)}; all of them by default")
    parser.add_argument("--seconds", type=float, default=60, help="how long for each parser")
    parser.add_argument("--in-this-process", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - set(PARSERS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if arguments.in_this_process:
        fuzz_with_atheris(arguments.targets[0], arguments.seconds)
    fuzz = fuzz_with_hypothesis if importlib.util.find_spec("atheris") is None else fuzz_in_a_process
    broken = [name for name in arguments.targets or PARSERS if not fuzz(name, arguments.seconds)]
    sys.exit(f"broken: {', '.join(broken)}" if broken else 0)


def fuzz_in_a_process(name: str, seconds: float) -> bool:
    """Fuzz in a process of its own, which libFuzzer ends; return whether nothing broke."""
    print(f"{name}: {seconds:g} s with atheris", flush=True)
    again = [sys.executable, __file__, "--in-this-process", "--seconds", f"{seconds}", name]
    return subprocess.run(again, check=False).returncode == 0


def fuzz_with_atheris(name: str, seconds: float) -> None:
    """Let libFuzzer choose the inputs by code coverage. Does not return."""
    import atheris

    # Only our own code: to instrument all that is imported takes longer than the fuzzing.
    with atheris.instrument_imports(include=["hf_summary_writer"]):
        from fuzz.targets import TARGETS

    with tempfile.TemporaryDirectory() as found:
        # libFuzzer adds new inputs to the first folder only, so the corpus in the repository stays small.
        options = [f"-max_total_time={seconds:.0f}", "-max_len=4096", "-verbosity=0", "-print_final_stats=1"]
        options += [f"-artifact_prefix={CORPUS / name}/", found, str(CORPUS / name)]
        atheris.Setup([sys.argv[0], *options], TARGETS[name])
        atheris.Fuzz()


def fuzz_with_hypothesis(name: str, seconds: float) -> bool:
    """Mutate the inputs of the corpus until the time is over; return whether nothing broke."""
    from hypothesis import HealthCheck, Phase, given, settings

    from fuzz.targets import TARGETS
    from fuzz.test_corpus import changed

    print(f"{name}: {seconds:g} s with Hypothesis", flush=True)
    phases, last = [Phase.generate, Phase.shrink], b""

    @settings(deadline=None, database=None, phases=phases, suppress_health_check=list(HealthCheck))
    @given(changed(name))
    def check(data: bytes) -> None:
        nonlocal last
        last = data
        TARGETS[name](data)

    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            check()
    except Exception as error:  # noqa: BLE001 - every exception of a parser is a failure
        path = CORPUS / name / f"crash-{hashlib.sha1(last, usedforsecurity=False).hexdigest()}"
        path.write_bytes(last)
        print(f"{path}: {error!r}", flush=True)
        return False
    return True


if __name__ == "__main__":
    main()
