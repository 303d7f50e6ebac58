"""Import every module of the installed package that needs no framework: `python scripts/import_all.py`.

Type checkers assume one version of Python, so they miss code that fails at import on an older supported version.
"""

from __future__ import annotations

import importlib
import pkgutil

import hf_summary_writer

# They import the framework that they are for.
FRAMEWORKS = "hf_summary_writer.integrations."


def main() -> None:
    names = [module.name for module in pkgutil.walk_packages(hf_summary_writer.__path__, "hf_summary_writer.")]
    for name in names:
        if not name.startswith(FRAMEWORKS):
            importlib.import_module(name)
    for name in hf_summary_writer.__all__:
        getattr(hf_summary_writer, name)


if __name__ == "__main__":
    main()
