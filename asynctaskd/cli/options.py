"""The options that commands share, each defined once; their texts come from the settings themselves."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

from asynctaskd.config import SETTINGS
from asynctaskd.errors import InvalidInputError


def setting_help(key: str) -> str:
    """What `--help` says of a setting: its description and its variable."""
    setting = SETTINGS[key]
    return f"{setting.description}  [env var: {setting.variable}]"


def example(*lines: str) -> str:
    """The end of a command's help."""
    # \b keeps the lines as they are.
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def split(values: Iterable[str] | None) -> list[str] | None:
    """The members of a list option, which may be repeated and takes several members between commas."""
    if not values:  # left out: typer says None to a command, and an empty tuple in its context
        return None
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def chosen_by(option: str, values: Iterable[str] | None) -> list[str] | None:
    """The same of an option that chooses tasks: an empty shell variable must not choose more of them.

    Raises:
        InvalidInputError: a member is empty.
    """
    members = [part.strip() for value in values or () for part in value.split(",")]
    if not all(members):
        raise InvalidInputError(f"{option} must not be empty, nor hold an empty member")
    return members or None


class SelectingCommand(TyperCommand):
    """A command whose options choose tasks: of one that is given twice, neither is dropped in silence."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse what is given twice and may be given once.

        Raises:
            InvalidInputError: something is.
        """
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        for option in given:
            is_single = isinstance(option, TyperOption) and not (option.multiple or option.is_flag)
            if is_single and given.count(option) > 1:
                raise InvalidInputError(f"{option.opts[0]} can be given only once")
        return super().parse_args(ctx, args)


MAX_ID = 2**63 - 1

Database = Annotated[
    str | None,
    typer.Option("--database", metavar="URL", help=setting_help("database.url"), show_default=False),
]
Schema = Annotated[
    str | None,
    typer.Option("--schema", metavar="NAME", help=setting_help("database.schema"), show_default=False),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        envvar="ASYNCTASKD_CONFIG",
        help="The TOML file to read the configuration from; flags and variables win over it.",
        show_default=False,
    ),
]
Concurrency = Annotated[
    str | None,
    typer.Option(
        "--concurrency", metavar="N|cpu", help=setting_help("worker.concurrency"), show_default=False
    ),
]
WorkerLabels = Annotated[
    str | None,
    typer.Option("--labels", metavar="A,B", help=setting_help("worker.labels"), show_default=False),
]
App = Annotated[
    str,
    typer.Option(
        "--app",
        metavar="MODULE:APP",
        envvar="ASYNCTASKD_APP",
        help="Where the App is that declares the tasks; the current directory is importable.",
        show_default=False,
    ),
]
OptionalApp = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE:APP",
        envvar="ASYNCTASKD_APP",
        help="Check name and payload against this App first.",
        show_default=False,
    ),
]
DecodingApp = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE:APP",
        envvar="ASYNCTASKD_APP",
        help="Decode what this App's codecs have encoded, and hide what it marks as secret.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TaskId = Annotated[int, typer.Argument(metavar="ID", min=1, max=MAX_ID, help="The id of the task.")]
