"""`asynctaskd migrate`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from asynctaskd.cli.options import AsJson, ConfigFile, Database, Schema
from asynctaskd.cli.output import print_json
from asynctaskd.cli.session import find_database, read_config
from asynctaskd.postgres import migrate as migrations
from asynctaskd.postgres.driver import connect, translated

if TYPE_CHECKING:
    from asynctaskd.postgres.migrate import Migration


def migrate(
    database: Database = None,
    schema: Schema = None,
    config: ConfigFile = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only print what would be applied.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the database's schema up to this version.

    All or nothing, and safe to run from everywhere at once: one applies, the others find nothing to do.
    """
    settings = read_config(database, schema, config)
    dsn = find_database(settings)
    found, version = asyncio.run(_plan_or_migrate(dsn, settings.database.schema_name, plan))
    if as_json:
        print_json({"plan": plan, "migrations": [_as_json(one) for one in found], "version": version})
    else:
        typer.echo("\n".join(_sentences(found, version, plan)))


async def _plan_or_migrate(dsn: str, schema: str, plan: bool) -> tuple[list[Migration], str]:
    if not plan:
        applied = await migrations.migrate(dsn, schema=schema)
        return applied, await _version(dsn, schema)
    with translated():
        missing = await migrations.plan(dsn, schema=schema)
    return missing, version_of(missing[-1]) if missing else await _version(dsn, schema)


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


def _sentences(found: list[Migration], version: str, plan: bool) -> list[str]:
    if not found:
        return [f"nothing to do: the schema version is {version}"]
    verb, ending = ("would apply", "would be") if plan else ("applied", "is now")
    return [*(f"{verb} {title_of(one)}" for one in found), f"the schema version {ending} {version}"]


def _as_json(migration: Migration) -> dict[str, object]:
    return {"number": migration.number, "name": migration.name, "version": version_of(migration)}
