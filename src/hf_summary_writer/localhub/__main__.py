"""`python -m hf_summary_writer.localhub --root DIR`."""

from __future__ import annotations

import argparse

from hf_summary_writer.localhub.server import serve


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m hf_summary_writer.localhub", description="A Hub on this machine.")
    parser.add_argument("--root", required=True, help="the folder that holds the repos")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=0, help="the port to listen on; 0 takes a free one")
    parser.add_argument("--token", help="the token that opens the Hub; made up if not given")
    parser.add_argument("--commits-per-hour", type=int, metavar="N", help="answer 429 to more commits than this")
    parser.add_argument("--requests-per-5min", type=int, metavar="N", help="answer 429 to more API requests than this")
    arguments = parser.parse_args()
    try:
        serve(**vars(arguments))
    except (OSError, RuntimeError) as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
