"""Every error that asynctaskd raises, and the three that a handler may raise.

AsynctaskdError
├── InvalidInputError (also ValueError)      a value breaks a rule; nothing was written
│   ├── InvalidDefinitionError               a task was declared wrongly; raised at import
│   ├── InvalidPayloadError                  a payload can't be stored, or doesn't fit its definition
│   ├── InvalidSignatureError                a request isn't signed by who it should be from
│   └── UnknownTaskError                     the App knows no task of that name
├── InvalidStateError                        what is asked for can't be done as things stand
├── ConfigError                              a file, variable or flag is wrong (exit code 78)
├── SchemaVersionError                       the database's schema doesn't suit this version (exit code 78)
├── DatabaseUnavailableError                 the database is away, or takes no writes (exit code 69)
├── DatabaseRefusedError                     it answered and refused: password, name, rights (exit code 78)
├── WorkerIdTakenError                       another live worker has this worker.id (exit code 75)
├── LeaseLostError                           this execution no longer owns its task
├── RemoteTaskError                          the service or program that runs a task failed, or said so
└── TaskError                                the answer about one task; carries `task_id`
    ├── TaskNotFoundError
    ├── TaskAlreadyExistsError               its unique tag is taken
    ├── TaskCancelledError
    └── TaskFailedError                      it ended without completing
        └── TaskExpiredError                 it wasn't started before its deadline

Raised by handlers, never by asynctaskd:

FatalTaskError                               fail now, without a retry
RetryQuietlyError                            retry by policy, without an error event
SnoozeTask                                   come back later; no attempt is spent
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from asynctaskd.durations import parse_duration


class AsynctaskdError(Exception):
    """The root of all errors that asynctaskd raises."""


class InvalidInputError(AsynctaskdError, ValueError):
    """A value breaks a rule. Nothing was written; correct the value the message names."""


class InvalidDefinitionError(InvalidInputError):
    """A task is declared wrongly. The message names the task and the parameter or option."""


class InvalidPayloadError(InvalidInputError):
    """A payload or a result can't be stored as it is, or a payload doesn't fit the task's parameters."""


class InvalidSignatureError(InvalidInputError):
    """A request isn't signed with this secret, or was signed too long ago: don't do what it says."""


class UnknownTaskError(InvalidInputError):
    """The App knows no task of that name: perhaps the module that declares it was never imported."""


class InvalidStateError(AsynctaskdError):
    """What is asked for can't be done as things stand, which the message tells. Nothing was changed."""


class ConfigError(AsynctaskdError):
    """A configuration file, environment variable or flag is wrong. The message names the key."""


class SchemaVersionError(AsynctaskdError):
    """The database's schema is missing, or of a version this daemon can't work with."""


class DatabaseUnavailableError(AsynctaskdError):
    """The database can't be reached or doesn't accept writes at the moment; try again later."""


class DatabaseRefusedError(AsynctaskdError):
    """The database answered and refused: a wrong password, no such database, no rights."""


class WorkerIdTakenError(AsynctaskdError):
    """Another live worker has this `worker.id`: stop it first, or give this one an id of its own."""


class LeaseLostError(AsynctaskdError):
    """This execution no longer owns its task: what it wrote in this transaction was rolled back."""


class RemoteTaskError(AsynctaskdError):
    """The service or the program that a task was handed to failed, or said that the task did."""


class TaskError(AsynctaskdError):
    """An answer about one task.

    Attributes:
        task_id: the task's id.
    """

    def __init__(self, message: str, *, task_id: int) -> None:
        super().__init__(message)
        self.task_id = task_id

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), str(self), self.__dict__)


def _restored(kind: type[Exception], message: str, attributes: dict[str, Any]) -> Exception:
    """An error that was pickled or copied, without going through its own `__init__` again."""
    error = kind.__new__(kind, message)
    error.__dict__.update(attributes)
    return error


class TaskNotFoundError(TaskError):
    """There is no such task: it never existed, or its record was already forgotten (`keep`)."""


class TaskAlreadyExistsError(TaskError):
    """The unique tag is taken; `task_id` is the task that holds it. Raised with `on_conflict="raise"`."""


class TaskCancelledError(TaskError):
    """The task was cancelled before it completed."""


class TaskFailedError(TaskError):
    """The task ended without completing.

    Attributes:
        task_id: the task's id.
        name: its name.
        attempts: how often it was claimed.
        max_attempts: how many executions it was allowed; -1 is unlimited.
        last_error: the text of its last error, or None.
    """

    def __init__(
        self, *, task_id: int, name: str, attempts: int, max_attempts: int | None, last_error: str | None
    ) -> None:
        limit = {None: "", -1: " (unlimited)"}.get(max_attempts, f" of {max_attempts}")
        super().__init__(
            f"task {name!r} ({task_id}) {self._how} after {attempts}{limit} attempts: {last_error}",
            task_id=task_id,
        )
        self.name = name
        self.attempts = attempts
        self.max_attempts = max_attempts
        self.last_error = last_error

    _how = "failed"


class TaskExpiredError(TaskFailedError):
    """The task's deadline passed before it was started."""

    _how = "expired"


class FatalTaskError(Exception):
    """Raise it in a handler to fail the task at once (reason `terminated`), whatever its retry policy."""


class RetryQuietlyError(Exception):
    """Raise it in a handler to retry by policy without an error event. A final failure always has one."""


class SnoozeTask(Exception):  # noqa: N818  (an instruction to come back later, not an error; the name is public)
    """Raise it in a handler to run the task again after `delay`; no attempt is spent.

    Attributes:
        delay: how long to wait; given as a timedelta or as text such as "30s".
    """

    def __init__(self, delay: str | timedelta) -> None:
        self.delay = parse_duration(delay)
        super().__init__(f"snoozed for {delay}")

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), str(self), self.__dict__)
