"""Who may do what: five roles, named after the schema, that logins are made members of.

    SCHEMA_owner      owns everything; nobody logs in as it, migrations run as it
    SCHEMA_worker     reads and writes rows; makes no tables
    SCHEMA_enqueuer   the functions that enqueue, and nothing else
    SCHEMA_operator   reads everything; commands, configuration and schedules
    SCHEMA_viewer     reads what there is, without what tasks carry

`rights/grant.sql` says what each may do. It runs after every migration of a schema that has roles.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import asyncpg

from asynctaskd.errors import DatabaseRefusedError
from asynctaskd.postgres.driver import render

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTS = ("owner", "worker", "enqueuer", "operator", "viewer")
"""What the roles are called behind the name of the schema and an underscore."""


@dataclass(frozen=True, slots=True)
class RoleChanges:
    """What `migrate --roles` did, or would do.

    Attributes:
        made: the roles that weren't there.
        moved: the tables that belonged to somebody else, and are the owner's now.
        joined: the roles that had been given the right to write tasks by hand, and are enqueuers now.
    """

    made: tuple[str, ...]
    moved: tuple[str, ...]
    joined: tuple[str, ...]


def role_names(schema: str) -> tuple[str, ...]:
    """The names of the five roles of a schema, in the order of `PARTS`."""
    return tuple(f"{schema}_{part}" for part in PARTS)


# The statements that applications and viewers send; all others of a client's are an operator's.
_ENQUEUER = frozenset(("enqueue", "enqueue_plain", "enqueue_many", "schedule_by_enqueue"))
_VIEWER = frozenset(
    (
        "config_answers", "config_history", "count_lagging", "count_tasks", "has_live_worker", "list_audit",
        "list_slots", "list_workers", "look_at_events", "look_at_newest_tasks", "look_at_schedules",
        "look_at_tasks", "new_events", "new_tasks", "newest_config", "newest_ids", "overview", "pulse",
        "receipts", "relatives", "search_tasks", "secrets", "unwatch", "watch", "why", "why_each",
    )
)  # fmt: skip


@cache
def role_for(statement: str, schema: str) -> str:
    """The role whose rights a client's statement takes, by the statement's name in `queries/`."""
    part = "enqueuer" if statement in _ENQUEUER else "viewer" if statement in _VIEWER else "operator"
    return f"{schema}_{part}"


async def has_roles(connection: asyncpg.Connection, schema: str) -> bool:
    """Whether roles were made for this schema: partitions are made with their owner's rights.

    Not whether there are such roles: they may be another database's, or somebody named the owner so.
    """
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM pg_proc JOIN pg_namespace AS n ON n.oid = pronamespace"
        " WHERE nspname = $1 AND proname = 'ensure_finished_partition' AND prosecdef)",
        schema,
    )
    return found


async def act_as_owner(connection: asyncpg.Connection, schema: str) -> None:
    """For the rest of the transaction, be whoever owns the schema: what is made there is then theirs.

    Raises:
        DatabaseRefusedError: the current role may not.
    """
    owner = await connection.fetchval(
        "SELECT nspowner::regrole::text FROM pg_namespace"
        " WHERE nspname = $1 AND nspowner <> current_user::regrole",
        schema,
    )
    if owner is not None:
        with _refused(
            f"run it as a role that is a member of {owner}, which owns the schema, or as a superuser"
        ):
            await connection.execute(f"SET LOCAL ROLE {owner}")


async def missing_roles(connection: asyncpg.Connection, schema: str) -> tuple[str, ...]:
    """The names of the roles that aren't there."""
    rows = await connection.fetch(
        "SELECT one FROM unnest($1::text[]) AS one WHERE to_regrole(one) IS NULL", list(role_names(schema))
    )
    return tuple(row[0] for row in rows)


async def tables_of_others(connection: asyncpg.Connection, schema: str) -> tuple[str, ...]:
    """The tables of the schema that don't belong to its owner's role yet."""
    rows = await connection.fetch(_script("tables_of_others", schema), schema, role_names(schema)[0])
    return tuple(row[0] for row in rows)


async def enqueuers_by_hand(connection: asyncpg.Connection, schema: str) -> tuple[str, ...]:
    """The roles that may write tasks because somebody granted it, and aren't enqueuers yet."""
    rows = await connection.fetch(_script("enqueuers_by_hand", schema), schema, list(role_names(schema)))
    return tuple(row[0] for row in rows)


async def make_roles(connection: asyncpg.Connection, schema: str) -> None:
    """Make what is missing, and let the current role act as the owner.

    Raises:
        DatabaseRefusedError: the current role may not; the message says who can, and what to run.
    """
    with _refused(_no_right_to_make(await connection.fetchval("SELECT current_user"), schema)):
        await connection.execute(_script("make_roles", schema))


def ours_alone() -> AbstractContextManager[None]:
    """For what concerns everything there is, and may be refused since some of it belongs to another role.

    Raises:
        DatabaseRefusedError: the message says what to do.
    """
    return _refused(
        "it belongs to another role, and can be given to the owner by that role or a superuser: "
        "run `asynctaskd migrate --roles` as a superuser once"
    )


def may_migrate(schema: str) -> AbstractContextManager[None]:
    """For all that a migration asks and does.

    Raises:
        DatabaseRefusedError: the current role may not; the message says who can, and what to grant.
    """
    return _refused(
        f"`asynctaskd migrate` takes a role that owns the schema {schema}, or is a member of its owner; "
        "where there is none yet, one that may make it (GRANT CREATE ON DATABASE … TO …). Run it as such a "
        "one, or as a superuser"
    )


async def hand_over(connection: asyncpg.Connection, schema: str) -> None:
    """Give everything to the owner. The tables concerned are locked."""
    await connection.execute(_script("hand_over", schema))


async def join_enqueuers(connection: asyncpg.Connection, schema: str, roles: tuple[str, ...]) -> None:
    """Let those who could enqueue before do so as enqueuers."""
    enqueuer = role_names(schema)[PARTS.index("enqueuer")]
    with _refused(_no_right_to_make(await connection.fetchval("SELECT current_user"), schema)):
        for role in roles:
            await connection.execute(f"GRANT {enqueuer} TO {role}")


async def grant_rights(connection: asyncpg.Connection, schema: str) -> None:
    """Have each role's rights be what `rights/grant.sql` says. The current role is the owner."""
    await connection.execute(_script("grant", schema))


def _script(name: str, schema: str) -> str:
    path = files("asynctaskd.postgres") / "rights" / f"{name}.sql"
    return render(path.read_text(encoding="utf8"), schema)


def _no_right_to_make(me: str, schema: str) -> str:
    owner, *others = role_names(schema)
    made = " ".join(f"CREATE ROLE {name};" for name in (owner, *others))
    return (
        f"{me} may not make roles, or not give these away. Run `asynctaskd migrate --roles` as a role with "
        "CREATEROLE that has made them all, or as a superuser; or have a superuser run what is missing of "
        f"this: {made} GRANT {', '.join((owner, *others))} TO {me} WITH ADMIN OPTION;"
    )


@contextmanager
def _refused(remedy: str) -> Iterator[None]:
    try:
        yield
    except asyncpg.InsufficientPrivilegeError as error:
        raise DatabaseRefusedError(f"the database refused: {error}: {remedy}") from error
