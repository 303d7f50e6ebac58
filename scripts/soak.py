"""Soak: the chaos lane for as long as you like, with a new seed every minute, which is printed.

python scripts/soak.py --minutes 60
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

# The tests' environment: a home of its own, set before the client is imported.
import conftest  # noqa: F401

# isort: split
from huggingface_hub import HfApi

from faults.ordeal import undergo
from hub_process import HubProcess

ROUND_SECONDS = 60.0


def main() -> None:
    """Go through ordeals until the time is over; fail with the first that loses something."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, required=True, help="how long; a round that has begun is finished")
    parser.add_argument("--seed", type=int, help="the first round's seed; by default a random one")
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.minutes * 60
    seed = random.randrange(2**32) if arguments.seed is None else arguments.seed
    with tempfile.TemporaryDirectory() as folder, HubProcess(Path(folder, "hub")) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        while time.monotonic() < end:
            print(f"seed {seed}: ", end="", flush=True)
            stop = min(end, time.monotonic() + ROUND_SECONDS)
            logdir = Path(folder, f"{seed}", "run")
            logdir.parent.mkdir()
            outcome = undergo(
                hub, api, f"tester/soak-{seed}", logdir, seed=seed, faults=True,
                goes_on=lambda kills, stop=stop: not kills or time.monotonic() < stop,
            )  # fmt: skip
            print(outcome, flush=True)
            seed += 1


if __name__ == "__main__":
    main()
