"""Run a program for a task, and take its exit code and its output for what the task comes to."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from asynctaskd.definitions.context import TaskContext
from asynctaskd.definitions.payload import dump_payload
from asynctaskd.definitions.remote.document import MAX_RESULT, task_document, written_deadline
from asynctaskd.definitions.remote.program import Ended, run_program
from asynctaskd.errors import FatalTaskError, InvalidDefinitionError, RemoteTaskError, SnoozeTask

# Of sysexits.h, where these are EX_DATAERR and EX_TEMPFAIL.
TERMINATE, COME_BACK = 65, 75
_USUAL_SNOOZE = "1m"

_INHERITED = ("PATH", "LANG", "HOME")
_PREFIX = "ASYNCTASKD_TASK_"


@dataclass(frozen=True)
class Command:
    """What is run for the tasks of one definition.

    Attributes:
        command: the program and its arguments; no shell reads them.
        environ: what its environment holds beside PATH, LANG and HOME.
        directory: where it runs; None: where the worker does.
    """

    command: tuple[str, ...]
    environ: Mapping[str, str]
    directory: Path | None

    @classmethod
    def checked(cls, task: str, command: object, env: object, cwd: str | Path | None) -> Command:
        """What `command_task` was given.

        Raises:
            InvalidDefinitionError: it is no list of strings, or the environment no mapping of them.
        """
        return cls(_program(task, command), _environment(task, env), None if cwd is None else Path(cwd))

    async def run(self, payload: object, context: TaskContext) -> Any:
        """Run the program; returns the result.

        Raises: what a handler may raise, as the exit code says; RemoteTaskError where it is another than 0.
        """
        with _task_file(task_document(payload, context)) as path:
            try:
                ended = await run_program(self.command, self._environ(path, context), self.directory)
            except OSError as error:
                raise RemoteTaskError(f"{self.command[0]} can't be started: {error}") from error
        return self._result(ended)

    def _environ(self, path: Path, context: TaskContext) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        told = {
            "FILE": str(path),
            "ID": str(context.task_id),
            "NAME": context.name,
            "ATTEMPT": str(context.attempt),
            "DEADLINE": written_deadline(context.deadline),
        }
        return inherited | dict(self.environ) | {f"{_PREFIX}{name}": value for name, value in told.items()}

    def _result(self, ended: Ended) -> Any:
        complaint = ended.complaint.decode(errors="replace").strip()
        if ended.output is None:
            raise RemoteTaskError(f"{self.command[0]} wrote more than {MAX_RESULT} bytes to standard output")
        if ended.code == TERMINATE:
            raise FatalTaskError(complaint or f"{self.command[0]} ended with exit code {TERMINATE}")
        if ended.code == COME_BACK:
            raise _snooze(ended.output)
        if ended.code:
            raise RemoteTaskError(f"{self.command[0]} {_how(ended.code)}: {complaint}")
        return _decoded(ended.output)


def _program(task: str, command: object) -> tuple[str, ...]:
    parts = () if isinstance(command, str) or not isinstance(command, Sequence) else tuple(command)
    if not parts or not _are_texts(parts):
        raise InvalidDefinitionError(
            f"task {task!r}: command must be a list of the program and its arguments, got {command!r}; "
            "no shell reads it"
        )
    return parts


def _environment(task: str, env: object) -> dict[str, str]:
    given = {} if env is None else env
    if not isinstance(given, Mapping) or not _are_texts([*given, *given.values()]):
        raise InvalidDefinitionError(f"task {task!r}: env must be a mapping of strings to strings")
    if bad := [name for name in given if name.startswith(_PREFIX) or "=" in name]:
        raise InvalidDefinitionError(f"task {task!r}: env can't set {bad[0]!r}: {_PREFIX}… tells of the task")
    return dict(given)


def _are_texts(values: Sequence[object]) -> bool:
    return all(isinstance(value, str) and "\0" not in value for value in values)


@contextmanager
def _task_file(document: bytes) -> Iterator[Path]:
    """A file that nobody but this user reads, in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="asynctaskd-") as directory:
        path = Path(directory, "task.json")
        path.touch(mode=0o600)
        path.write_bytes(document)
        yield path


def _how(code: int) -> str:
    if code > 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:  # one of the many without a name
        return f"was ended by signal {-code}"


def _snooze(output: bytes) -> Exception:
    """Come back after what the last line says."""
    lines = output.decode(errors="replace").split()
    try:
        return SnoozeTask(lines[-1] if lines else _USUAL_SNOOZE)
    except ValueError:
        return SnoozeTask(_USUAL_SNOOZE)


def _decoded(output: bytes) -> Any:
    text = output.decode(errors="replace").strip()
    try:
        value = from_json(text, allow_inf_nan=False) if text else None
        dump_payload(value)
    except ValueError:  # no JSON, or none that can be stored
        return text
    return value
