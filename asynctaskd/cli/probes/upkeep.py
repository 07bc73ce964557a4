"""Whether tables, indexes and partitions are looked after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctaskd.cli.probes.finding import FAILURE, OK, WARNING, Finding, lasting, listed

if TYPE_CHECKING:
    import asyncpg

    from asynctaskd.cli.probes.ground import Ground

_LONGEST_NAP = 60
# How many dead rows a table that changes with every task may gather before autovacuum comes, and how many
# times as many say that it doesn't keep up.
_MOST_ALLOWED = 20_000
_TOO_LATE = 5


async def autovacuum(ground: Ground) -> Finding:
    """Whether the server cleans up by itself, often enough for tables that change with every task."""
    [(is_on, nap)] = await ground.ask("check_autovacuum")
    if not is_on:
        remedy = "set autovacuum = on and track_counts = on"
        return Finding("autovacuum", FAILURE, "it is off: claims get slower with every task", remedy)
    if nap > _LONGEST_NAP:
        message = f"autovacuum_naptime is {lasting(nap)}: dead rows gather meanwhile"
        return Finding("autovacuum", WARNING, message, "set autovacuum_naptime = '1min' or less")
    for row in await ground.ask("check_vacuum"):
        if finding := _of_table(row, ground.schema):
            return finding
    return Finding("autovacuum", OK, f"on, for every table, each {lasting(nap)}")


def _of_table(row: asyncpg.Record, schema: str) -> Finding | None:
    table, allowed, dead = f"{schema}.{row['name']}", round(row["allowed"]), row["dead"]
    if not row["is_enabled"]:
        remedy = f"ALTER TABLE {table} RESET (autovacuum_enabled)"
        return Finding("autovacuum", WARNING, f"it leaves {table} alone", remedy)
    if row["is_hot"] and allowed > _MOST_ALLOWED:
        message = f"it comes to {table} after {allowed:,} dead rows, and that table changes with every task"
        settings = "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000"
        remedy = f"ALTER TABLE {table} SET ({settings})"
        return Finding("autovacuum", WARNING, message, remedy)
    if dead > _TOO_LATE * max(allowed, _MOST_ALLOWED):
        message = f"it doesn't keep up: {table} has {dead:,} dead rows, it should come after {allowed:,}"
        remedy = "see who pins the horizon, above; else raise autovacuum_vacuum_cost_limit or _max_workers"
        return Finding("autovacuum", WARNING, message, remedy)
    return None


async def indexes(ground: Ground) -> Finding:
    """Whether each index is complete: one whose making failed costs writes and serves nobody."""
    broken = [row[0] for row in await ground.ask("check_indexes")]
    if not broken:
        return Finding("indexes", OK, "all are valid")
    remedy = (
        f"REINDEX INDEX CONCURRENTLY {broken[0]}; or DROP INDEX CONCURRENTLY {broken[0]} where you made it, "
        "or its name ends with _ccnew or _ccold"
    )
    return Finding("indexes", WARNING, f"not valid: {listed(broken)}", remedy)


async def partitions(ground: Ground) -> Finding:
    """Whether old records go: a partition is dropped within minutes once its day has come."""
    rows = await ground.ask("check_partitions")
    overdue = [f"{name} ({'detached' if is_loose else 'attached'})" for name, is_loose in rows]
    if not overdue:
        return Finding("partitions", OK, "none is overdue")
    remedy = (
        "have a worker running; a transaction that uses finished_tasks keeps it (see pg_stat_activity, and "
        "`partition.in_use` in the log)"
    )
    return Finding("partitions", WARNING, f"should be gone for a day: {listed(overdue)}", remedy)
