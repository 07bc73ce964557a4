"""Making roles: by whom, over what is there, from everywhere at once; and what later migrations do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from asynctaskd import Client
from asynctaskd.errors import DatabaseRefusedError
from asynctaskd.postgres import migrate as module
from asynctaskd.postgres.driver import render
from asynctaskd.postgres.migrate import (
    Migration,
    migrate,
    migrate_with_roles,
    plan_roles,
    shipped_migrations,
)
from asynctaskd.postgres.roles import role_names
from asynctaskd.postgres.scratch import with_database
from tests.support.divided import as_login, can_make_roles

if TYPE_CHECKING:
    from asyncpg import Connection, Record

PASSWORD = "of-a-test"


@dataclass
class Bare:
    """Databases that were never migrated, and logins; dropped after the test, with the roles of a schema."""

    server: str
    admin: Connection[Record]
    schema: str = field(default_factory=lambda: f"r{uuid4().hex[:12]}")
    databases: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)

    async def database(self) -> str:
        """The URL of a new database, for whoever made it."""
        self.databases.append(f"{self.schema}_{len(self.databases)}")
        await self.admin.execute(f'CREATE DATABASE "{self.databases[-1]}"')
        return with_database(self.server, self.databases[-1])

    async def login(self, name: str, attributes: str = "") -> str:
        self.logins.append(f"{self.schema}_{name}")
        await self.admin.execute(f"CREATE ROLE {self.logins[-1]} LOGIN PASSWORD '{PASSWORD}' {attributes}")
        return self.logins[-1]

    async def migrator(self, database: str, name: str = "deploy", attributes: str = "CREATEROLE") -> str:
        """The URL of a login that may migrate that database."""
        login = await self.login(name, attributes)
        name_of_it = urlsplit(database).path.lstrip("/")
        await self.admin.execute(f'GRANT CREATE ON DATABASE "{name_of_it}" TO {login}')
        return as_login(database, login)

    async def clear(self) -> None:
        for database in self.databases:
            await self.admin.execute(f'DROP DATABASE "{database}" WITH (FORCE)')
        for role in (*role_names(self.schema), *self.logins):
            await self.admin.execute(f"DROP ROLE IF EXISTS {role}")


@pytest.fixture
async def bare(dsn: str) -> AsyncIterator[Bare]:
    if not await can_make_roles(dsn):
        pytest.skip("the tests' role may not make roles")
    admin = await asyncpg.connect(dsn)
    made = Bare(dsn, admin)
    yield made
    await made.clear()
    await admin.close()


@pytest.fixture
def ship(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Has one more migration shipped."""

    def shipped(sql: str) -> None:
        last = shipped_migrations()[-1]
        added = Migration(last.number + 1, "later", last.major, last.minor + 1, sql)
        together = [*shipped_migrations(), added]
        monkeypatch.setattr(module, "shipped_migrations", lambda: together)

    return shipped


async def ask(dsn: str, schema: str, statement: str) -> list[Record]:
    connection = await asyncpg.connect(dsn)
    try:
        rows: list[Record] = await connection.fetch(render(statement, schema))
    finally:
        await connection.close()
    return rows


OWNERS = """
    SELECT relowner::regrole::text FROM pg_class
    WHERE relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'asynctaskd.tasks'::regclass)
    UNION
    SELECT proowner::regrole::text FROM pg_proc
    WHERE pronamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'asynctaskd.tasks'::regclass)
    UNION
    SELECT typowner::regrole::text FROM pg_type
    WHERE typnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'asynctaskd.tasks'::regclass)
    UNION
    SELECT nspowner::regrole::text FROM pg_namespace
    WHERE oid = (SELECT relnamespace FROM pg_class WHERE oid = 'asynctaskd.tasks'::regclass)
"""


async def owners(dsn: str, schema: str) -> list[str]:
    return [row[0] for row in await ask(dsn, schema, OWNERS)]


async def test_no_superuser_is_needed_and_a_second_time_changes_nothing(bare: Bare) -> None:
    deploy = await bare.migrator(await bare.database())
    planned = await plan_roles(deploy, schema=bare.schema)
    assert planned.made == role_names(bare.schema)
    applied, changes = await migrate_with_roles(deploy, schema=bare.schema)
    assert applied == shipped_migrations()
    assert changes.made == role_names(bare.schema)
    assert await owners(deploy, bare.schema) == [f"{bare.schema}_owner"]
    nothing = ([], module.RoleChanges((), (), ()))
    assert await migrate_with_roles(deploy, schema=bare.schema) == nothing
    assert await plan_roles(deploy, schema=bare.schema) == nothing[1]


async def test_a_login_without_rights_is_told_which_role_migrates(bare: Bare) -> None:
    database = await bare.database()
    stranger = as_login(database, await bare.login("stranger"))
    for attempt in (migrate, migrate_with_roles):
        with pytest.raises(DatabaseRefusedError, match="CREATE ON DATABASE.*superuser"):
            await attempt(stranger, schema=bare.schema)
    await migrate(database, schema=bare.schema)
    for attempt in (migrate, migrate_with_roles, module.plan):
        with pytest.raises(DatabaseRefusedError, match=f"owns the schema {bare.schema}, or is a member"):
            await attempt(stranger, schema=bare.schema)


async def test_nobody_logs_in_as_a_role_and_none_is_a_superuser(bare: Bare) -> None:
    await migrate_with_roles(await bare.database(), schema=bare.schema)
    rows = await bare.admin.fetch(
        "SELECT rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls FROM pg_roles"
        " WHERE rolname = ANY ($1)",
        list(role_names(bare.schema)),
    )
    assert [row[0] for row in rows] == [False] * 5


async def test_what_is_there_already_is_handed_over_and_applications_go_on(bare: Bare) -> None:
    database = await bare.database()
    deploy = await bare.migrator(database)
    await migrate(deploy, schema=bare.schema)
    shop, other = await bare.login("shop"), await bare.login("report")
    await ask(
        deploy,
        bare.schema,
        f"GRANT USAGE ON SCHEMA {bare.schema} TO {shop}, {other}",
    )
    await ask(deploy, bare.schema, f"GRANT SELECT, INSERT ON asynctaskd.tasks TO {shop}")
    await ask(deploy, bare.schema, f"GRANT SELECT ON asynctaskd.tasks TO {other}")
    await ask(deploy, bare.schema, "SELECT asynctaskd.ensure_finished_partition('2030-01-01')")

    planned = await plan_roles(deploy, schema=bare.schema)
    applied, changes = await migrate_with_roles(deploy, schema=bare.schema)
    assert (applied, changes) == ([], planned)
    assert changes.joined == (shop,)
    assert "finished_tasks_20300101" in changes.moved
    assert await owners(deploy, bare.schema) == [f"{bare.schema}_owner"]
    async with Client(as_login(database, shop), schema=bare.schema) as client:
        assert await client.enqueue("a", parent_id=await client.enqueue("a")) > 0
    assert await ask(as_login(database, other), bare.schema, "SELECT id FROM asynctaskd.tasks")


async def test_something_of_another_role_is_refused_as_a_whole(bare: Bare) -> None:
    database = await bare.database()
    deploy = await bare.migrator(database)
    await migrate(deploy, schema=bare.schema)
    await ask(deploy, bare.schema, "SELECT asynctaskd.ensure_finished_partition('2030-01-01')")
    worker = await bare.login("worker0")
    await ask(database, bare.schema, f"GRANT CREATE ON SCHEMA {bare.schema} TO {worker}")
    await ask(database, bare.schema, f"ALTER TABLE asynctaskd.finished_tasks_20300101 OWNER TO {worker}")
    with pytest.raises(DatabaseRefusedError, match="finished_tasks_20300101.*superuser"):
        await migrate_with_roles(deploy, schema=bare.schema)
    assert (await plan_roles(deploy, schema=bare.schema)).made == role_names(bare.schema)
    await migrate_with_roles(database, schema=bare.schema)
    assert await owners(database, bare.schema) == [f"{bare.schema}_owner"]


async def test_a_later_migration_runs_as_the_owner_and_keeps_everybodys_rights(
    bare: Bare, ship: Callable[[str], None]
) -> None:
    database = await bare.database()
    deploy = await bare.migrator(database)
    await migrate_with_roles(deploy, schema=bare.schema)
    shop = await bare.login("shop")
    await bare.admin.execute(f"GRANT {bare.schema}_enqueuer TO {shop}")
    # As the next version of a function does it: it runs with its caller's rights again.
    ship(
        """-- schema
        CREATE TABLE asynctaskd.more (n integer);
        CREATE FUNCTION asynctaskd.more() RETURNS integer LANGUAGE sql RETURN 1;
        CREATE OR REPLACE FUNCTION asynctaskd.schedule_by_enqueue(
            name text, payload jsonb, cron text, settings jsonb) RETURNS bigint LANGUAGE plpgsql AS $$
            BEGIN RETURN (SELECT count(*) FROM asynctaskd.tasks); END $$;
        """
    )
    assert len(await migrate(deploy, schema=bare.schema)) == 1
    assert await owners(deploy, bare.schema) == [f"{bare.schema}_owner"]
    theirs = as_login(database, shop)
    assert await ask(theirs, bare.schema, "SELECT asynctaskd.schedule_by_enqueue('a', '{}', '@daily', '{}')")
    for denied in ("SELECT asynctaskd.more()", "SELECT * FROM asynctaskd.more"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await ask(theirs, bare.schema, denied)


async def test_a_database_without_roles_stays_without_whatever_others_have(
    bare: Bare, ship: Callable[[str], None]
) -> None:
    """Roles belong to the server: another database's schema of that name has some."""
    divided, plain = await bare.database(), await bare.database()
    await migrate_with_roles(divided, schema=bare.schema)
    await migrate(plain, schema=bare.schema)
    ship("-- schema\nCREATE TABLE asynctaskd.more (n integer)")
    await migrate(plain, schema=bare.schema)
    [[is_the_owners]] = await ask(
        plain, bare.schema, "SELECT prosecdef FROM pg_proc WHERE oid = 'asynctaskd.enqueue_written'::regproc"
    )
    assert not is_the_owners


async def test_a_login_that_happens_to_be_named_as_the_owner_goes_on(
    bare: Bare, ship: Callable[[str], None]
) -> None:
    database = await bare.database()
    owner = await bare.migrator(database, "owner")
    await migrate(owner, schema=bare.schema)
    ship("-- schema\nCREATE TABLE asynctaskd.more (n integer)")
    assert len(await migrate(owner, schema=bare.schema)) == 1
    await migrate_with_roles(owner, schema=bare.schema)
    assert await owners(owner, bare.schema) == [f"{bare.schema}_owner"]


async def test_ten_at_once_in_two_databases(bare: Bare) -> None:
    databases = [await bare.database(), await bare.database()]
    calls = [migrate_with_roles(databases[n % 2], schema=bare.schema) for n in range(10)]
    done = await asyncio.gather(*calls)
    assert sorted(len(applied) for applied, _ in done) == [0] * 8 + [len(shipped_migrations())] * 2
    for database in databases:
        assert await owners(database, bare.schema) == [f"{bare.schema}_owner"]


async def test_two_that_are_no_superusers_at_once(bare: Bare) -> None:
    """Since PostgreSQL 16 the second has nothing to say over roles that the first has made."""
    databases = [await bare.database(), await bare.database()]
    deploys = [await bare.migrator(one, f"deploy{n}") for n, one in enumerate(databases)]
    done = await asyncio.gather(
        *(migrate_with_roles(one, schema=bare.schema) for one in deploys), return_exceptions=True
    )
    refused = [one for one in done if isinstance(one, BaseException)]
    assert len(refused) <= 1
    for one in refused:
        assert isinstance(one, DatabaseRefusedError)
        assert "WITH ADMIN OPTION" in str(one)
    grantees = ", ".join(bare.logins)
    await bare.admin.execute(f"GRANT {', '.join(role_names(bare.schema))} TO {grantees} WITH ADMIN OPTION")
    for one in deploys:
        await migrate_with_roles(one, schema=bare.schema)
        assert await owners(one, bare.schema) == [f"{bare.schema}_owner"]


async def test_whoever_may_make_no_roles_is_told_who_can(bare: Bare) -> None:
    deploy = await bare.migrator(await bare.database(), attributes="")
    with pytest.raises(DatabaseRefusedError, match="CREATEROLE") as caught:
        await migrate_with_roles(deploy, schema=bare.schema)
    advice = str(caught.value).partition("run what is missing of this: ")[2]
    assert not await bare.admin.fetchval("SELECT to_regrole($1)", f"{bare.schema}_owner")
    await bare.admin.execute(advice)
    await migrate_with_roles(deploy, schema=bare.schema)
    assert await owners(deploy, bare.schema) == [f"{bare.schema}_owner"]


async def test_whoever_isnt_of_the_owner_may_not_migrate_and_is_told_so(
    bare: Bare, ship: Callable[[str], None]
) -> None:
    database = await bare.database()
    await migrate_with_roles(database, schema=bare.schema)
    other = await bare.migrator(database, "other")
    await bare.admin.execute(f"GRANT {bare.schema}_viewer TO {bare.logins[-1]}")
    ship("-- schema\nCREATE TABLE asynctaskd.more (n integer)")
    with pytest.raises(DatabaseRefusedError, match=f"member of {bare.schema}_owner"):
        await migrate(other, schema=bare.schema)
