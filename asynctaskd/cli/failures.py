"""From errors to exit codes and to one readable text on standard error.

0  fine                          69  the database can't be reached
1  the operation failed          70  an error in asynctaskd itself
2  wrong usage or a bad value    75  not done in time, or worker.id is taken: try again
3  the fleet hasn't done in time what was asked of it
78 bad configuration, refused by the database, or another schema version
130 interrupted by Ctrl-C
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from enum import IntEnum
from typing import Protocol, runtime_checkable

from asynctaskd.cli.output import printable
from asynctaskd.errors import (
    AsynctaskdError,
    ConfigError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    InvalidInputError,
    SchemaVersionError,
    WorkerIdTakenError,
)
from asynctaskd.postgres.driver import LoginRefusedError
from asynctaskd.telemetry.discretion import without_passwords
from asynctaskd.telemetry.logs import describe_error, flush_logs

# What a full disk or a terminal that is gone says to whoever writes.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)

_DATABASE = "--database (or ASYNCTASKD_DATABASE_URL)"


class ExitCode(IntEnum):
    """What the process tells its parent."""

    FINE = 0
    FAILED = 1
    USAGE = 2
    NOT_CONVERGED = 3
    UNAVAILABLE = 69
    INTERNAL = 70
    TRY_AGAIN = 75
    CONFIG = 78
    INTERRUPTED = 130


@runtime_checkable
class UsageError(Protocol):
    """An error of the parser's. A protocol, since typer has a copy of click or uses click, by version."""

    exit_code: int

    def format_message(self) -> str:
        """What is wrong, in a sentence."""
        ...


def report(error: BaseException, *, debug: bool) -> ExitCode:
    """Tell on standard error what went wrong, with the traceback only where it was asked for."""
    flush_logs()
    if debug:
        _write_lines("".join(traceback.format_exception(error)))
    complain(describe(error))
    return exit_code(error)


def is_unwritable(error: BaseException) -> bool:
    """Whether it is about standard output: an error about a file names it."""
    return isinstance(error, OSError) and error.errno in _UNWRITABLE and error.filename is None


def complain(text: str) -> None:
    """Write a text to standard error, each line marked as an error, passwords left out."""
    _write_lines(text, mark="error: ")


def wants_debug() -> bool:
    """Whether the environment asks for tracebacks."""
    return os.environ.get("ASYNCTASKD_LOG_LEVEL", "").lower() == "debug"


def exit_code(error: BaseException) -> ExitCode:
    """The exit code that stands for an error."""
    match error:
        case UsageError() | InvalidInputError():
            return ExitCode.USAGE
        case ConfigError() | SchemaVersionError() | DatabaseRefusedError():
            return ExitCode.CONFIG
        case DatabaseUnavailableError():
            return ExitCode.UNAVAILABLE
        case TimeoutError() | WorkerIdTakenError():
            return ExitCode.TRY_AGAIN
        case AsynctaskdError():
            return ExitCode.FAILED
        case OSError() if is_unwritable(error):
            return ExitCode.FAILED
        case KeyboardInterrupt():
            return ExitCode.INTERRUPTED
    return ExitCode.INTERNAL


def describe(error: BaseException) -> str:
    """What went wrong and, where the message itself doesn't say so, what to do next."""
    match error:
        case UsageError():
            return _sentences(error.format_message(), _usage_hint(error))
        case DatabaseUnavailableError():
            return _sentences(str(error), f"Is the server running, and does {_DATABASE} name it?")
        case LoginRefusedError():
            return _sentences(
                str(error), f"Check user, password and database in {_DATABASE}, and that user's rights."
            )
        case ConfigError() | DatabaseRefusedError():
            return str(error)
        case AsynctaskdError() | TimeoutError():
            return " ".join(str(error).splitlines()) or type(error).__name__
        case OSError() if is_unwritable(error):
            return f"the output can't be written: {error.strerror}"
        case KeyboardInterrupt():
            return "interrupted"
    hint = "This is a bug in asynctaskd; `asynctaskd --debug …` shows where."
    return _sentences(f"internal error: {describe_error(error)}", hint)


def _usage_hint(error: object) -> str:
    path = getattr(getattr(error, "ctx", None), "command_path", "asynctaskd")
    return f"See `{path} --help`."


def _sentences(first: str, second: str) -> str:
    first = first.strip()
    return f"{first if first.endswith(('.', '?', '!')) else f'{first}.'} {second}"


def _write_lines(text: str, mark: str = "") -> None:
    for line in text.splitlines():
        sys.stderr.write(f"{mark}{printable(without_passwords(line))}\n")
    sys.stderr.flush()
