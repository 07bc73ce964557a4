"""The seam to asyncpg: connections with deadlines, queries from files, and driver errors in our words."""

from __future__ import annotations

import asyncio
import re
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from functools import cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import asyncpg

from asynctaskd.config.values import SCHEMA_PATTERN, SCHEMA_RULE
from asynctaskd.errors import (
    AsynctaskdError,
    ConfigError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    InvalidInputError,
    InvalidPayloadError,
    InvalidStateError,
    SchemaVersionError,
    TaskAlreadyExistsError,
)
from asynctaskd.postgres.access import Access, UnknownParameterError
from asynctaskd.postgres.connection import Connection
from asynctaskd.postgres.sessions import History, Sessions
from asynctaskd.postgres.tls import UntrustedServerError
from asynctaskd.postgres.urls import HOW_TO_WRITE_IT
from asynctaskd.telemetry.discretion import describe

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from datetime import timedelta


class StatementRefusedError(InvalidInputError):
    """The server or its driver refused a value in a statement: trying again changes nothing."""


class NotPrimaryError(DatabaseUnavailableError):
    """The database answers, and takes no writes: a standby, or the primary before a failover."""


class RowsLockedError(DatabaseUnavailableError):
    """Somebody keeps something locked that a statement needs."""


class CutShortError(DatabaseUnavailableError):
    """A statement took longer than it may (statement_timeout), or somebody cancelled it."""


class ConflictError(DatabaseUnavailableError):
    """The server aborted a transaction in favour of another one: the whole of it may be tried again."""


class RightMissingError(DatabaseRefusedError):
    """It lets this login in, but not do this: the message names the role to grant."""


class LoginRefusedError(DatabaseRefusedError):
    """It lets nobody in: user, password or the database's name is wrong, or that user has no rights."""


CALL_TIMEOUT = 10.0
"""The limit of a command's own calls, in seconds; the daemon's have shorter ones (`sessions.HOT`, `LONG`)."""

_TURN_TIMEOUT = 3.0
_RELEASE_TIMEOUT = 3.0

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
    # Whatever the role or the database says. Who waits for a statement gives up after 3 s, or after 8.
    "lock_timeout": "2500ms",
    "statement_timeout": "8s",
    "idle_in_transaction_session_timeout": "30s",
    "timezone": "UTC",  # a day is 24 hours, whatever the server's zone
}

# Whoever looks around asks seldom, and is given little time: a plan that is kept from when the tables were
# empty would read through all of them, and to compile one takes longer than it runs.
FRESH_PLANS = {"jit": "off", "plan_cache_mode": "force_custom_plan"}

_SCHEMA = re.compile(r"\basynctaskd(?=([._;]))")
# What a server adds where it found no entry for this host, if it speaks English.
_WITHOUT_TLS = re.compile(r"\b(no encryption|SSL off)$")
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

_DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
_UNAVAILABLE = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # its state machine, where a connection breaks in the middle of an answer
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TransactionTimeoutError,
    asyncpg.PostgresSystemError,  # its disk fails
    asyncpg.InternalServerError,
    asyncpg.InvalidSQLStatementNameError,  # somebody cleared the session: a pooler, an operator
    asyncpg.DuplicatePreparedStatementError,
    asyncpg.ObjectNotInPrerequisiteStateError,  # the database takes no connections for now
)
_REFUSED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)
_UNFIT = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)
_READ_ONLY = (asyncpg.TargetServerAttributeNotMatched, asyncpg.ReadOnlySQLTransactionError)
_NOT_PRIMARY = "it is a standby or read-only and takes no writes; connect to the primary"
_NO_SCHEMA = (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError, asyncpg.UndefinedFunctionError)


def render(sql: str, schema: str) -> str:
    """SQL written for the schema `asynctaskd`, for the schema of that name.

    Raises:
        InvalidInputError: it is no name of a schema.
    """
    if schema == "asynctaskd":
        return sql
    if not SCHEMA_PATTERN.fullmatch(schema):
        raise InvalidInputError(f"schema must be {SCHEMA_RULE}, got {schema!r}")
    return _SCHEMA.sub(lambda found: schema if found[1] == "_" else f'"{schema}"', sql)


@cache
def query(name: str, schema: str) -> str:
    """The statement of `queries/NAME.sql`, for that schema."""
    path = files("asynctaskd.postgres") / "queries" / f"{name}.sql"
    return render(path.read_text(encoding="utf8"), schema)


def translated(
    *, but: tuple[type[Exception], ...] = (), role: str | None = None
) -> AbstractContextManager[None]:
    """Raise driver errors as ours; everything else passes, and so does what `but` names.

    `role` is the one whose rights the statement takes, for whoever lacks them.
    """
    return _Translation(but, role)


class _Translation:
    # A class: a generator would cost more than the rest of a client's call.
    __slots__ = ("_but", "_role")

    def __init__(self, but: tuple[type[Exception], ...], role: str | None) -> None:
        self._but = but
        self._role = role

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if not isinstance(error, _DRIVER_ERRORS) or isinstance(error, self._but):
            return
        ours = translate(error, self._role)
        if ours is not None:
            raise ours from error


def translate(error: BaseException, role: str | None = None) -> AsynctaskdError | None:
    """Our word for a driver error, or None where it has no meaning of its own here."""
    if isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "").startswith("ATD"):
        return _domain_error(error)
    if isinstance(error, _REFUSED):
        return _refusal(error, role)
    if isinstance(error, _NO_SCHEMA):
        return SchemaVersionError(
            f"the schema isn't there or too old ({error}): run `asynctaskd migrate` with the same --database "
            "and --schema, or name the schema that is there by --schema (ASYNCTASKD_DATABASE_SCHEMA)"
        )
    if isinstance(error, asyncpg.UntranslatableCharacterError):
        return InvalidPayloadError(f"the database can't store this text: {describe(error)}")
    if isinstance(error, _READ_ONLY):
        return NotPrimaryError(f"the database is unavailable: {_NOT_PRIMARY}")
    if _comes_from_notify(error):
        return DatabaseUnavailableError(
            "the database is unavailable: its queue of notices is full, since a session that listens keeps a "
            "transaction open; see pg_stat_activity"
        )
    if isinstance(error, asyncpg.LockNotAvailableError):
        return RowsLockedError(f"the database is unavailable: {_brief(error)}")
    if isinstance(error, asyncpg.QueryCanceledError):
        return CutShortError(f"the database is unavailable: {_brief(error)}")
    if isinstance(error, CONFLICTS):
        return ConflictError(f"the database is unavailable: {_brief(error)}")
    if isinstance(error, _UNAVAILABLE):
        return DatabaseUnavailableError(f"the database is unavailable: {_brief(error)}")
    if isinstance(error, _UNFIT):
        return StatementRefusedError(f"the database refused a value: {describe(error)}")
    return None


def _refusal(error: BaseException, role: str | None) -> DatabaseRefusedError:
    if role and isinstance(error, asyncpg.InsufficientPrivilegeError):
        return RightMissingError(
            f"the database refused: {error}. GRANT {role} TO this login allows it; "
            "`asynctaskd migrate --roles` makes that role"
        )
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError) and _WITHOUT_TLS.search(str(error)):
        return DatabaseRefusedError(
            f"the database refused: {error}. It may let nobody in without TLS: ask for it by "
            "sslmode=verify-full in the URL, or have pg_hba.conf let this host in"
        )
    return LoginRefusedError(f"the database refused: {error}")


def _comes_from_notify(error: BaseException) -> bool:
    # The code may mean a value that is too long for an index too, and messages are in the server's language.
    origin = getattr(error, "server_source_function", None)
    return isinstance(error, asyncpg.ProgramLimitExceededError) and origin == "PreCommit_Notify"


def _domain_error(error: asyncpg.PostgresError) -> AsynctaskdError:
    message, detail = str(error.args[0]), getattr(error, "detail", None)
    if error.sqlstate == "ATD04":
        return InvalidStateError(message)
    if error.sqlstate == "ATD03" and detail:
        return TaskAlreadyExistsError(message, task_id=int(detail))
    if _ABOUT_PAYLOAD.match(message):
        return InvalidPayloadError(message)
    return InvalidInputError(message)


def _brief(error: BaseException) -> str:
    return str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)


@asynccontextmanager
async def connect(dsn: str, **settings: str) -> AsyncIterator[Connection]:
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
        await connection.close()


async def open_connection(dsn: str, **settings: str) -> Connection:
    """One connection; raises like `connect`. The caller closes it."""
    return await _opened(_access(dsn, settings=settings, call_timeout=CALL_TIMEOUT))


def _access(dsn: str, **options: Any) -> Access:
    with _readable_url():
        return Access(dsn, **options)


async def _opened(access: Access) -> Connection:
    try:
        with _readable_url(), translated():
            return await access.open()
    except ConfigError as error:
        if not access.was_open:
            raise
        # It could be read before: a file is just being replaced, or a pooler restarted with other settings.
        raise DatabaseUnavailableError(f"the database is unavailable: {error}") from error


class _Pool(asyncpg.Pool):
    """asyncpg's pool, which doesn't wait for ever for what a connection that comes back still does."""

    async def release(
        self, connection: asyncpg.pool.PoolConnectionProxy, *, timeout: float | None = _RELEASE_TIMEOUT
    ) -> None:
        # What goes wrong here ends the connection, and is no concern of whoever had it.
        with suppress(TimeoutError, OSError, asyncpg.PostgresError):
            await super().release(connection, timeout=timeout)


async def open_pool(dsn: str, *, size: int) -> asyncpg.Pool:
    """A pool of at most `size` connections for users' statements, opened when needed.

    Calls have no limit, connecting has one. Raises like `connect` for the first connection.
    """
    access = _access(dsn, writes=True)

    async def open_another(*_: object, **__: object) -> Connection:
        return await _opened(access)

    return await _Pool(
        connect=open_another,
        min_size=0,  # asyncpg would log each failure to come back to it
        init_size=1,
        max_size=size,
        max_queries=50_000,
        max_inactive_connection_lifetime=0,
        loop=None,
        connection_class=asyncpg.Connection,
        record_class=asyncpg.Record,
    )


async def open_sessions(dsn: str, *, size: int) -> Sessions:
    """At most `size` connections for a client's calls; raises like `connect` for the first."""
    sessions = Sessions(partial(_opened, _access(dsn, writes=True)), size)
    await sessions.open()
    return sessions


def limited_sessions(dsn: str, *, size: int, limit: timedelta) -> Sessions:
    """At most `size` connections for questions that the server gives so much time; opened when first needed.

    What takes longer ends with a CutShortError. Behind a pooler, too.
    """
    settings = {"statement_timeout": f"{round(limit.total_seconds() * 1000)}ms", **FRESH_PLANS}
    return Sessions(
        partial(_opened, _access(dsn, settings=settings)), size, pinned=settings, patience=_TURN_TIMEOUT
    )


async def open_pinned_sessions(dsn: str, *, size: int) -> Sessions:
    """At most `size` connections for the daemon's own statements; raises like `connect` for the first."""
    sessions = Sessions(
        partial(_opened, _access(dsn, settings=PINNED_PLANS, writes=True)),
        size,
        pinned=PINNED_PLANS,
        patience=_TURN_TIMEOUT,
        history=History(query("log_position", "asynctaskd")),
    )
    with translated():
        await sessions.open()
    return sessions


@contextmanager
def _readable_url() -> Iterator[None]:
    try:
        yield
    except StatementRefusedError as error:  # a setting that came with the URL
        raise DatabaseRefusedError(str(error)) from error
    except UntrustedServerError as error:
        raise DatabaseRefusedError(str(error)) from error
    except (asyncpg.UndefinedObjectError, UnknownParameterError) as error:
        raise ConfigError(
            f"database.url has a parameter that nobody knows: {error}. Remove it, or correct its name"
        ) from None
    except (asyncpg.ClientConfigurationError, ValueError) as error:
        raise ConfigError(f"database.url can't be read ({type(error).__name__}): {HOW_TO_WRITE_IT}") from None
