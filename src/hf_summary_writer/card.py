"""The README.md that a repo of ours starts with, so that the Hub lists it and a visitor knows what it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_summary_writer.destination import Destination

__all__ = ["PATH", "card"]

PATH = "README.md"

# A Space is built as its card says; the fields are those that the Hub requires of one without a program.
_SPACE_FIELDS = ('title: "{name}"', "emoji: 📈", "colorFrom: blue", "colorTo: green", "sdk: static", "pinned: false")

_BODY = """
# {name}

Logs of training runs, in the format of [TensorBoard](https://www.tensorflow.org/tensorboard), kept up to date by
`hf-summary-writer` while the training goes on. {where}

To read them on a machine of your own:

```sh
pip install huggingface_hub tensorboard
hf download {repo_id}{options} --local-dir {name}
tensorboard --logdir {logs}
```
"""


def card(destination: Destination) -> bytes:
    """Return a card for the new repo of `destination`, whose `repo_id` has its namespace."""
    name = destination.name
    fields = [field.format(name=name) for field in _SPACE_FIELDS if destination.repo_type == "space"]
    options = "" if destination.repo_type == "model" else f" --repo-type {destination.repo_type}"
    options += "" if destination.is_default_branch else f" --revision {destination.revision}"
    where = "Each folder below is a run."
    if destination.repo_type == "model" and destination.is_default_branch:
        where = 'The tab "Metrics" of this page shows them.'
    head = ["---", *fields, "tags:", "- tensorboard", "- hf-summary-writer", "---"]
    # Not the download itself: the client keeps files of its own there, by names that TensorBoard takes for runs.
    logs = "/".join([name, *destination.path.split("/")[:-1]])
    body = _BODY.format(name=name, logs=logs, repo_id=destination.repo_id, options=options, where=where)
    return ("\n".join(head) + "\n" + body).encode()
