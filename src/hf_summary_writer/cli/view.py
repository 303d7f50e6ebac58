"""`hf-summary-writer view`."""

import click


@click.command()
def view() -> None:
    """Look."""
