"""`asynctaskd generate`."""

from __future__ import annotations

from difflib import unified_diff
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from asynctaskd.cli.output import counted, printable
from asynctaskd.definitions.extras import GENERATE, require_extra
from asynctaskd.errors import AsynctaskdError, InvalidInputError

if TYPE_CHECKING:
    from asynctaskd.definitions.spec.spec import Spec

_DIFF_LINES = 20

Tasks = Annotated[Path, typer.Argument(metavar="TASKS", help="The YAML file with the definitions.")]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="MODULE",
        help="The Python file to write; tasks_gen.py beside tasks.yaml if left out.",
        show_default=False,
    ),
]
Check = Annotated[bool, typer.Option("--check", help="Write nothing; exit with 1 where the module is stale.")]


def generate(tasks: Tasks, output: Output = None, check: Check = False) -> None:
    """Write the typed Python module of a tasks.yaml.

    It has classes of parameters, an Executor to implement, a TaskRunner that enqueues, and `register`.
    """
    spec, path, source = _generated(tasks, output)
    before = _read(path)
    if before != source and check:
        _tell_difference(path, before, source)
        raise AsynctaskdError(f"{path} is stale: run `asynctaskd generate {tasks}`")
    if before != source:
        _write(path, before, source)
    typer.echo(f"{path}: {counted(len(spec.tasks), 'task')}{', up to date' if before == source else ''}")


def read_spec(path: Path) -> Spec:
    """Read a file of definitions; what is odd about it is told on standard error.

    Raises:
        ConfigError: something is wrong with it, or the extra `generate` isn't installed.
    """
    require_extra("generate", GENERATE)
    from asynctaskd.definitions.spec.tasks import load_spec  # noqa: PLC0415  (an extra)

    spec = load_spec(path)
    for warning in spec.warnings:
        typer.echo(f"warning: {printable(warning)}", err=True)
    return spec


def _generated(tasks: Path, output: Path | None) -> tuple[Spec, Path, str]:
    spec = read_spec(tasks)
    from asynctaskd.definitions.codegen.module import default_path, write_module  # noqa: PLC0415  (an extra)

    return spec, output or default_path(tasks), write_module(spec)


def _read(path: Path) -> str | None:
    """What the module holds now, or None where there is none."""
    try:
        return path.read_text("utf8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AsynctaskdError(f"{path} can't be read: {error.strerror}") from error


def _write(path: Path, before: str | None, source: str) -> None:
    from asynctaskd.definitions.codegen.module import MARK  # noqa: PLC0415  (an extra)

    if before and not before.startswith(MARK):
        raise InvalidInputError(f"{path} wasn't generated: remove it first, or name another file by --output")
    try:
        path.write_text(source, "utf8")
    except OSError as error:
        raise AsynctaskdError(f"{path} can't be written: {error.strerror}") from error


def _tell_difference(path: Path, before: str | None, source: str) -> None:
    old, new = (before or "").splitlines(), source.splitlines()
    lines = unified_diff(old, new, f"{path}, as it is", f"{path}, as it should be", n=1, lineterm="")
    for line in islice(lines, _DIFF_LINES):
        typer.echo(printable(line), err=True)
