"""The command line: builds the parts and hands them to each other."""

import io
import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command that the arguments name (those of the process), and leave with its exit code."""
    from asynctaskd.cli.commands import cli  # noqa: PLC0415  (whoever imports the package wants no typer)

    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed before we began
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115  (as long as the process lives)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What the terminal's encoding doesn't have is escaped, rather than an error.
        sys.stdout.reconfigure(errors="backslashreplace")
    cli(arguments, prog_name="asynctaskd")
