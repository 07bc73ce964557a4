"""The command line: builds the parts and hands them to each other."""

import io
import sys


def main() -> None:
    """Run the command that the arguments name, and leave with its exit code."""
    from asynctaskd.cli.commands import cli  # noqa: PLC0415  (whoever imports the package wants no typer)

    if isinstance(sys.stdout, io.TextIOWrapper):
        # What the terminal's encoding doesn't have is escaped, rather than an error.
        sys.stdout.reconfigure(errors="backslashreplace")
    cli(prog_name="asynctaskd")
