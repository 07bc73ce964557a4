"""Migrations only add: what the previous release asks of the schema, this one's still answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from asynctaskd.postgres.scratch import connected
from tests.upgrades.releases import PREVIOUS, ROOT, Release

OURS = "'asynctaskd'::regnamespace"

COLUMNS = f"""
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod) AS type
FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
WHERE c.relnamespace = {OURS} AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
  AND a.attnum > 0 AND NOT a.attisdropped
"""
# What an old INSERT doesn't name has to have a value all the same.
DEMANDED = f"""
SELECT c.relname, a.attname
FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
WHERE c.relnamespace = {OURS} AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND a.attnum > 0 AND NOT a.attisdropped
  AND a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AND a.attgenerated = ''
"""
FUNCTIONS = f"""
SELECT proname, pg_get_function_result(oid) AS result, pronargs - pronargdefaults AS needed,
       ARRAY(SELECT format('%s %s', proargnames[n], proargtypes[n - 1]::regtype)
             FROM generate_series(1, pronargs) AS n) AS parameters
FROM pg_proc WHERE pronamespace = {OURS} AND prorettype <> 'trigger'::regtype
"""


@dataclass(frozen=True)
class Schema:
    """What may be relied on."""

    columns: set[tuple[str, ...]]
    demanded: set[tuple[str, ...]]
    functions: list[asyncpg.Record]


async def schema_of(connection: asyncpg.Connection) -> Schema:
    """Read it from the catalogue."""
    columns, demanded, functions = [
        await connection.fetch(question) for question in (COLUMNS, DEMANDED, FUNCTIONS)
    ]
    return Schema(set(map(tuple, columns)), set(map(tuple, demanded)), functions)


def losses(before: Schema, after: Schema) -> list[object]:
    """What was there before and isn't any more, and columns that an old INSERT doesn't fill."""
    known = {table for table, *_ in before.columns}
    return [
        *(before.columns - after.columns),
        *(one for one in after.demanded - before.demanded if one[0] in known),
        *(call for call in before.functions if not any(answers(one, call) for one in after.functions)),
    ]


def answers(function: asyncpg.Record, call: asyncpg.Record) -> bool:
    """Whether whoever called the old function is served by this one."""
    parameters, known = list(function["parameters"]), list(call["parameters"])
    return (
        function["proname"] == call["proname"]
        and function["result"] == call["result"]
        and parameters[: len(known)] == known
        and function["needed"] <= call["needed"]
    )


def test_migrations_that_were_released_are_as_they_were(previous: Path) -> None:
    for path in (previous / "migrations").glob("*.sql"):
        assert (ROOT / "migrations" / path.name).read_bytes() == path.read_bytes(), path.name


async def test_everything_that_the_previous_release_relies_on_is_still_there(
    old: Release, connection: asyncpg.Connection
) -> None:
    await old.command("migrate")
    async with connected(old.dsn) as earlier:
        before = await schema_of(earlier)
    assert losses(before, await schema_of(connection)) == []


async def test_every_statement_of_the_previous_release_can_still_be_prepared(
    previous: Path, connection: asyncpg.Connection
) -> None:
    refused = []
    for path in sorted((previous / "asynctaskd" / "postgres" / "queries").glob("*.sql")):
        try:
            await connection.prepare(path.read_text(encoding="utf8"))
        except asyncpg.PostgresError as error:
            refused.append(f"{path.name} of {PREVIOUS}: {error}")
    assert refused == []


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE asynctaskd.tasks RENAME COLUMN reason TO why",
        "ALTER TABLE asynctaskd.claims_told DROP COLUMN told_at",
        "ALTER TABLE asynctaskd.workers ADD COLUMN zone text NOT NULL",
        "ALTER TABLE asynctaskd.claims_told ALTER COLUMN claims TYPE json",
        "DROP FUNCTION asynctaskd.watch",
        "ALTER FUNCTION asynctaskd.watch RENAME TO look",
        """
        DROP FUNCTION asynctaskd.watch;
        CREATE FUNCTION asynctaskd.watch(watcher uuid, wanted text, lease interval, zone text) RETURNS void
        LANGUAGE sql RETURN NULL
        """,
    ],
)
async def test_a_change_that_takes_something_away_is_noticed(
    connection: asyncpg.Connection, change: str
) -> None:
    before = await schema_of(connection)
    await connection.execute(change)
    assert losses(before, await schema_of(connection))


async def test_a_parameter_with_a_default_takes_nothing_away(connection: asyncpg.Connection) -> None:
    before = await schema_of(connection)
    await connection.execute(
        "DROP FUNCTION asynctaskd.watch;"
        "CREATE FUNCTION asynctaskd.watch(watcher uuid, wanted text, lease interval, zone text DEFAULT '')"
        " RETURNS void LANGUAGE sql RETURN NULL;"
        "ALTER TABLE asynctaskd.workers ADD COLUMN zone text NOT NULL DEFAULT ''"
    )
    assert losses(before, await schema_of(connection)) == []
