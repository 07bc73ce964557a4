"""`asynctaskd migrate`."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from asynctaskd.cli.options import AsJson, ConfigFile, Database, Schema
from asynctaskd.cli.output import counted, print_json
from asynctaskd.cli.session import find_database, read_config
from asynctaskd.postgres import migrate as migrations
from asynctaskd.postgres.driver import connect, translated
from asynctaskd.postgres.roles import role_names

if TYPE_CHECKING:
    from asynctaskd.postgres.migrate import Migration
    from asynctaskd.postgres.roles import RoleChanges


def migrate(
    database: Database = None,
    schema: Schema = None,
    config: ConfigFile = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only print what would be applied.")] = False,
    roles: Annotated[
        bool,
        typer.Option("--roles", help="Also make the roles of workers, enqueuers, operators and viewers."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the database's schema up to this version.

    All or nothing, and safe to run from everywhere at once: one applies, the others find nothing to do.
    """
    settings = read_config(database, schema, config)
    dsn, name = find_database(settings), settings.database.schema_name
    done = asyncio.run(_plan(dsn, name, roles) if plan else _migrate(dsn, name, roles))
    if as_json:
        print_json({"plan": plan, **done.as_json()})
    else:
        typer.echo("\n".join([*_sentences(done, plan), *_about_roles(done, name, plan)]))


@dataclass(frozen=True, slots=True)
class _Done:
    migrations: list[Migration]
    version: str
    roles: RoleChanges | None

    def as_json(self) -> dict[str, object]:
        migrations = [_as_json(one) for one in self.migrations]
        roles = {} if self.roles is None else {"roles": asdict(self.roles)}
        return {"migrations": migrations, "version": self.version, **roles}


async def _migrate(dsn: str, schema: str, roles: bool) -> _Done:
    if roles:
        applied, changes = await migrations.migrate_with_roles(dsn, schema=schema)
        return _Done(applied, await _version(dsn, schema), changes)
    return _Done(await migrations.migrate(dsn, schema=schema), await _version(dsn, schema), None)


async def _plan(dsn: str, schema: str, roles: bool) -> _Done:
    missing = await migrations.plan(dsn, schema=schema)
    version = version_of(missing[-1]) if missing else await _version(dsn, schema)
    return _Done(missing, version, await migrations.plan_roles(dsn, schema=schema) if roles else None)


async def _version(dsn: str, schema: str) -> str:
    async with connect(dsn) as connection:
        with translated():
            major, minor = await migrations.require_version(connection, schema=schema)
    return f"{major}.{minor}"


def version_of(migration: Migration) -> str:
    """The schema version that a migration leads to."""
    return f"{migration.major}.{migration.minor}"


def title_of(migration: Migration) -> str:
    """How a migration's file is called, without its ending."""
    return f"{migration.number:04d}_{migration.name}"


def _sentences(done: _Done, plan: bool) -> list[str]:
    if not done.migrations:
        return [f"nothing to do: the schema version is {done.version}"]
    verb, ending = ("would apply", "would be") if plan else ("applied", "is now")
    return [
        *(f"{verb} {title_of(one)}" for one in done.migrations),
        f"the schema version {ending} {done.version}",
    ]


def _about_roles(done: _Done, schema: str, plan: bool) -> list[str]:
    changes = done.roles
    if changes is None:
        return []
    owner, worker, enqueuer, operator, viewer = role_names(schema)
    would = "would make" if plan else "made"
    grants = "would grant" if plan else "granted"
    return [
        *(f"{would} role {role}" for role in changes.made),
        *_about_owner(done, owner, plan),
        *(f"{grants} {enqueuer} to {role}, which could write tasks before" for role in changes.joined),
        *([] if changes.made or changes.moved or changes.joined else ["the roles are there"]),
        "",
        "Grant each login its part:",
        f"  GRANT {worker} TO …;    -- asynctaskd run",
        f"  GRANT {enqueuer} TO …;  -- applications",
        f"  GRANT {operator} TO …;  -- who steers: reads everything, commands, configuration, schedules",
        f"  GRANT {viewer} TO …;    -- who looks, without payloads, results and errors",
    ]


def _about_owner(done: _Done, owner: str, plan: bool) -> list[str]:
    """Whoever owned the tables until now loses what an owner may do."""
    if done.roles and done.roles.moved:
        gives = "would give" if plan else "gave"
        tables = counted(len(done.roles.moved), "table")
        return [f"{gives} {tables} and all else in the schema to {owner}: whoever owned them needs a part"]
    if done.migrations:
        return [f"all that is made {'would belong' if plan else 'belongs'} to {owner}"]
    return []


def _as_json(migration: Migration) -> dict[str, object]:
    return {"number": migration.number, "name": migration.name, "version": version_of(migration)}
