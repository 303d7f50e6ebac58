"""`python -m hf_summary_writer` is `hf-summary-writer`."""

from hf_summary_writer.cli import main

if __name__ == "__main__":
    main(prog_name="hf-summary-writer")
