"""`asynctaskd init`."""

from __future__ import annotations

import keyword
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from asynctaskd.cli.output import counted
from asynctaskd.errors import AsynctaskdError, InvalidInputError

_SKELETON = Path(__file__).with_name("skeleton")
_PLACEHOLDER = "PACKAGE"
# Named, since caches of pip and other tools may be beside them.
_FILES = (
    ".gitignore", "README.md", "config.toml", "pyproject.toml", "PACKAGE/__init__.py", "PACKAGE/app.py",
    "PACKAGE/handlers.py", "PACKAGE/tasks.yaml", "PACKAGE/tasks_gen.py", "tests/test_tasks.py",
)  # fmt: skip
# A package of one of these names would hide another, or be hidden by it.
_TAKEN = {*sys.stdlib_module_names, "asynctaskd", "tests"}
_EMAIL = '{"to": "ada@example.org", "subject": "Welcome"}'

Directory = Annotated[
    Path, typer.Argument(metavar="[DIRECTORY]", help="Where to write; it is made if need be.")
]
Name = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="PACKAGE",
        help="The name of the Python package; that of the directory if left out.",
        show_default=False,
    ),
]


def init(directory: Directory = Path(), name: Name = None) -> None:
    """Write the skeleton of an application: definitions, handlers, configuration, tests.

    It prints what to do next. Files that are there already are never changed.
    """
    package = _checked(directory.resolve().name.replace("-", "_") if name is None else name)
    files = _files(directory, package)
    _refuse_conflicts(directory, files)
    _write(files)
    typer.echo(f"wrote {counted(len(files), 'file')} of the package {package}; go on with")
    for line in _steps(directory, package):
        typer.echo(f"  {line}")


def _checked(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or keyword.iskeyword(name):
        raise InvalidInputError(
            "the package's name must be a Python identifier of letters, digits and _, beginning with a "
            f"letter, got {name!r}; choose one by --name"
        )
    if name in _TAKEN:
        raise InvalidInputError(f"a package {name!r} would hide Python's or another; choose one by --name")
    return name


def _files(directory: Path, package: str) -> Mapping[Path, str]:
    """Each file's path, and what will be in it."""
    texts = {path: (_SKELETON / path).read_text("utf8") for path in _FILES}
    return {
        directory / path.replace(_PLACEHOLDER, package): text.replace(_PLACEHOLDER, package)
        for path, text in texts.items()
    }


def _refuse_conflicts(directory: Path, files: Mapping[Path, str]) -> None:
    there = [path for path in files if path.exists() or path.is_symlink()]
    if there:
        names = ", ".join(str(path.relative_to(directory)) for path in there)
        raise AsynctaskdError(
            f"nothing was written, for {directory} has these files already: {names}; choose another directory"
        )


def _write(files: Mapping[Path, str]) -> None:
    for path, text in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf8") as file:
                file.write(text)
        except OSError as error:
            raise AsynctaskdError(f"{path} can't be written: {error.strerror}") from error


def _steps(directory: Path, package: str) -> list[str]:
    """Commands for a shell, one a line."""
    enter = [] if directory.resolve() == Path.cwd() else [f"cd {shlex.quote(str(directory))}"]
    return [
        *enter,
        f"export ASYNCTASKD_CONFIG=config.toml ASYNCTASKD_APP={package}.app:app",
        "pytest",
        "asynctaskd migrate",
        f"asynctaskd enqueue SendEmail '{_EMAIL}'",
        "asynctaskd run --once",
        "asynctaskd tasks list",
    ]
