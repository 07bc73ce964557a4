"""The command line: builds the parts and hands them to each other."""


def main() -> None:
    """Run the command that the arguments name, and leave with its exit code."""
    from asynctaskd.cli.commands import cli  # noqa: PLC0415  (whoever imports the package wants no typer)

    cli(prog_name="asynctaskd")
