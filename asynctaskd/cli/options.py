"""The options that commands share, each defined once; their texts come from the settings themselves."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from asynctaskd.config import SETTINGS


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
    if values is None:
        return None
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


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
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TaskId = Annotated[int, typer.Argument(metavar="ID", min=1, max=MAX_ID, help="The id of the task.")]
