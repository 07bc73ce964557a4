"""asynctaskd: a task daemon over PostgreSQL.

Everything an application needs is here; the rest of the package is private.
"""

from asynctaskd.app import App
from asynctaskd.client import Client
from asynctaskd.config.convergence import Canary, ConfigReport
from asynctaskd.config.runtime import RuntimeConfig
from asynctaskd.control.receipts import Receipt
from asynctaskd.definitions.context import TaskContext
from asynctaskd.definitions.cron import Cron
from asynctaskd.definitions.definition import Definition
from asynctaskd.definitions.generated import ParamsModel, TaskExecutor
from asynctaskd.definitions.options import RequestOptions
from asynctaskd.definitions.remote.signature import verify_signature
from asynctaskd.definitions.request import TaskRequest
from asynctaskd.errors import (
    AsynctaskdError,
    ConfigError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    FatalTaskError,
    InvalidDefinitionError,
    InvalidInputError,
    InvalidPayloadError,
    InvalidSignatureError,
    InvalidStateError,
    LeaseLostError,
    RemoteTaskError,
    RetryQuietlyError,
    SchemaVersionError,
    SnoozeTask,
    TaskAlreadyExistsError,
    TaskCancelledError,
    TaskError,
    TaskExpiredError,
    TaskFailedError,
    TaskNotFoundError,
    UnknownTaskError,
    WorkerIdTakenError,
)
from asynctaskd.scheduling.retry import RetryPolicy
from asynctaskd.task import Task, TaskFailure, TaskStatus
from asynctaskd.version import __version__

__all__ = [
    "App",
    "AsynctaskdError",
    "Canary",
    "Client",
    "ConfigError",
    "ConfigReport",
    "Cron",
    "DatabaseRefusedError",
    "DatabaseUnavailableError",
    "Definition",
    "FatalTaskError",
    "InvalidDefinitionError",
    "InvalidInputError",
    "InvalidPayloadError",
    "InvalidSignatureError",
    "InvalidStateError",
    "LeaseLostError",
    "ParamsModel",
    "Receipt",
    "RemoteTaskError",
    "RequestOptions",
    "RetryPolicy",
    "RetryQuietlyError",
    "RuntimeConfig",
    "SchemaVersionError",
    "SnoozeTask",
    "Task",
    "TaskAlreadyExistsError",
    "TaskCancelledError",
    "TaskContext",
    "TaskError",
    "TaskExecutor",
    "TaskExpiredError",
    "TaskFailedError",
    "TaskFailure",
    "TaskNotFoundError",
    "TaskRequest",
    "TaskStatus",
    "UnknownTaskError",
    "WorkerIdTakenError",
    "__version__",
    "verify_signature",
]
