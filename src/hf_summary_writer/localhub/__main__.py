"""`python -m hf_summary_writer.localhub --root DIR`."""

from __future__ import annotations

from hf_summary_writer.localhub.command import localhub

if __name__ == "__main__":
    localhub(prog_name="python -m hf_summary_writer.localhub")
