"""A schema with roles, and a login for each: what `asynctaskd migrate --roles` makes, granted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest

from asynctaskd.postgres.driver import render
from asynctaskd.postgres.migrate import migrate_with_roles
from asynctaskd.postgres.roles import PARTS, role_names
from asynctaskd.postgres.scratch import run_script, with_database

STRANGER = "stranger"
"""A login that was granted nothing."""

_PASSWORD = "of-a-test"


@dataclass(frozen=True)
class Divided:
    """A database whose schema has roles.

    Attributes:
        admin: the URL of whoever made the database.
        schema: a name of its own, since roles belong to the whole server.
        logins: URLs by part; nobody logs in as the owner.
    """

    admin: str
    schema: str
    logins: dict[str, str]

    def sql(self, statement: str) -> str:
        """A statement written for the schema `asynctaskd`, for this one."""
        return render(statement, self.schema)


def as_login(dsn: str, name: str) -> str:
    """The URL with another user."""
    url = urlsplit(dsn)
    return urlunsplit(url._replace(netloc=f"{name}:{_PASSWORD}@{url.netloc.rpartition('@')[2]}"))


@contextmanager
def divided_database(server: str) -> Iterator[Divided]:
    """A database with roles, dropped with them."""
    name = f"r{uuid4().hex[:12]}"
    admin = with_database(server, name)
    asyncio.run(run_script(server, f'CREATE DATABASE "{name}"'))
    try:
        yield asyncio.run(_divide(admin, name))
    finally:
        asyncio.run(_drop(server, name))


async def _divide(admin: str, schema: str) -> Divided:
    await migrate_with_roles(admin, schema=schema)
    parts = [*PARTS[1:], STRANGER]
    await run_script(
        admin,
        "".join(
            f"CREATE ROLE {_login(schema, part)} LOGIN PASSWORD '{_PASSWORD}';"
            + (f"GRANT {schema}_{part} TO {_login(schema, part)};" if part != STRANGER else "")
            for part in parts
        ),
    )
    return Divided(admin, schema, {part: as_login(admin, _login(schema, part)) for part in parts})


async def _drop(server: str, name: str) -> None:
    await run_script(server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    logins = [_login(name, part) for part in (*PARTS[1:], STRANGER)]
    await run_script(server, "".join(f"DROP ROLE IF EXISTS {one};" for one in (*logins, *role_names(name))))


def _login(schema: str, part: str) -> str:
    return f"{schema}_as_{part}"


async def can_make_roles(server: str) -> bool:
    """Whether the tests' role may make roles."""
    connection = await asyncpg.connect(server)
    try:
        found: bool = await connection.fetchval(
            "SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user"
        )
    finally:
        await connection.close()
    return found


@contextmanager
def divided_or_skipped(server: str) -> Iterator[Divided]:
    """Like `divided_database`; skips where the tests' role may not make roles."""
    if not asyncio.run(can_make_roles(server)):
        pytest.skip("the tests' role may not make roles")
    with divided_database(server) as made:
        yield made
