"""The seam to asyncpg: connections with deadlines, queries from files, and driver errors in our words."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import asyncpg

from asynctaskd.errors import (
    AsynctaskdError,
    ConfigError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    InvalidInputError,
    InvalidPayloadError,
    SchemaVersionError,
    TaskAlreadyExistsError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    Reset = Callable[[asyncpg.Connection], Awaitable[None]]


class StatementRefusedError(AsynctaskdError):
    """The server refused a statement for what is in it: trying again changes nothing."""


CONNECT_TIMEOUT = 5.0
CALL_TIMEOUT = 10.0

# The daemon's own statements are made for their indexes; with these off, a plan made while a table was
# empty still serves when it holds a million rows. Only its own connections are told so: users' queries
# (hooks, ctx.transaction) run elsewhere, with the server's settings.
PINNED_PLANS = {
    "enable_seqscan": "off",
    "enable_mergejoin": "off",
    "enable_nestloop": "off",  # where only LATERAL will do, it is used all the same
    "enable_bitmapscan": "off",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "default_transaction_isolation": "read committed",
    "statement_timeout": "15s",  # whatever the role or the database says
    "timezone": "UTC",  # a day is 24 hours, whatever the server's zone
}

_SCHEMA = re.compile(r"\basynctaskd(?=([._;]))")
_ABOUT_PAYLOAD = re.compile(r"(request \d+: )?payload ")
CONFLICTS = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
"""What the server aborts a transaction with so that its owner tries the whole of it again."""

CONNECTION_LOSS = (
    ConnectionError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
)
"""The server went away, or took the connection away."""

_UNAVAILABLE = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # its state machine, where a connection breaks in the middle of an answer
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.LockNotAvailableError,
    *CONFLICTS,
)
_REFUSED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)
_NO_SCHEMA = (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError, asyncpg.UndefinedFunctionError)


def render(sql: str, schema: str) -> str:
    """SQL written for the schema `asynctaskd`, for the schema of that name, which the caller has checked."""
    if schema == "asynctaskd":
        return sql
    return _SCHEMA.sub(lambda found: schema if found[1] == "_" else f'"{schema}"', sql)


@cache
def query(name: str, schema: str) -> str:
    """The statement of `queries/NAME.sql`, for that schema."""
    path = files("asynctaskd.postgres") / "queries" / f"{name}.sql"
    return render(path.read_text(encoding="utf8"), schema)


@contextmanager
def translated(*, but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Raise driver errors as ours; everything else passes, and so does what `but` names."""
    try:
        yield
    except but:
        raise
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        ours = translate(error)
        if ours is None:
            raise
        raise ours from error


def translate(error: BaseException) -> AsynctaskdError | None:
    """Our word for a driver error, or None where it has no meaning of its own here."""
    if isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "").startswith("ATD"):
        return _domain_error(error)
    if isinstance(error, _REFUSED):
        return DatabaseRefusedError(f"the database refused: {error}")
    if isinstance(error, _NO_SCHEMA):
        return SchemaVersionError(f"the schema isn't there or too old ({error}): run `asynctaskd migrate`")
    if isinstance(error, asyncpg.UntranslatableCharacterError):
        return InvalidPayloadError(f"the database can't store this text: {error}")
    if _comes_from_notify(error):
        return DatabaseUnavailableError(
            "the database is unavailable: its queue of notices is full, since a session that listens keeps a "
            "transaction open; see pg_stat_activity"
        )
    if isinstance(error, _UNAVAILABLE):
        return DatabaseUnavailableError(f"the database is unavailable: {_brief(error)}")
    if isinstance(error, asyncpg.DataError | asyncpg.IntegrityConstraintViolationError):
        return StatementRefusedError(f"the database refused a value: {_brief(error)}")
    return None


def _comes_from_notify(error: BaseException) -> bool:
    # The code may mean a value that is too long for an index too, and messages are in the server's language.
    origin = getattr(error, "server_source_function", None)
    return isinstance(error, asyncpg.ProgramLimitExceededError) and origin == "PreCommit_Notify"


def _domain_error(error: asyncpg.PostgresError) -> AsynctaskdError:
    message, detail = str(error.args[0]), getattr(error, "detail", None)
    if error.sqlstate == "ATD03" and detail:
        return TaskAlreadyExistsError(message, task_id=int(detail))
    if _ABOUT_PAYLOAD.match(message):
        return InvalidPayloadError(message)
    return InvalidInputError(message)


def _brief(error: BaseException) -> str:
    return str(error) or type(error).__name__


@asynccontextmanager
async def connect(dsn: str, **settings: str) -> AsyncIterator[asyncpg.Connection]:
    """One connection, closed at the end of the block.

    Raises:
        DatabaseUnavailableError: it can't be reached.
        DatabaseRefusedError: it refused: password, database or rights.
        ConfigError: the URL can't be read.
    """
    connection = await open_connection(dsn, **settings)
    try:
        yield connection
    finally:
        await close(connection)


async def open_connection(dsn: str, **settings: str) -> asyncpg.Connection:
    """One connection; raises like `connect`. The caller closes it with `close`."""
    with _readable_url(), translated():
        return await asyncpg.connect(
            dsn,
            timeout=CONNECT_TIMEOUT,
            command_timeout=CALL_TIMEOUT,
            server_settings={"application_name": "asynctaskd"} | settings,
        )


async def close(connection: asyncpg.Connection) -> None:
    """Close a connection, by force where the server doesn't answer: asyncpg's own close has no end."""
    try:
        await connection.close(timeout=1.0)
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()


async def open_pool(
    dsn: str,
    *,
    size: int,
    call_timeout: float | None = CALL_TIMEOUT,
    settings: dict[str, str] | None = None,
    reset: Reset | None = None,
) -> asyncpg.Pool:
    """A pool of at most `size` connections, opened when needed; raises like `connect` for the first.

    `call_timeout` bounds each call, in seconds; `settings` are server settings of its sessions; `reset` is
    what happens to a connection that comes back.
    """
    with _readable_url(), translated():
        return await asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=size,
            reset=reset,
            timeout=CONNECT_TIMEOUT,
            command_timeout=call_timeout,
            max_inactive_connection_lifetime=0,
            server_settings={"application_name": "asynctaskd"} | (settings or {}),
        )


@contextmanager
def _readable_url() -> Iterator[None]:
    try:
        yield
    except StatementRefusedError as error:  # a setting that came with the URL
        raise DatabaseRefusedError(str(error)) from error
    except (asyncpg.ClientConfigurationError, ValueError) as error:
        raise ConfigError(f"database.url can't be read: {type(error).__name__}") from None
