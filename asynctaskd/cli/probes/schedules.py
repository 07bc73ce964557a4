"""Whether every schedule can be kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctaskd.cli.probes.finding import OK, WARNING, Finding, listed
from asynctaskd.scheduling.cron import zone_of

if TYPE_CHECKING:
    import asyncpg

    from asynctaskd.cli.probes.ground import Ground


async def schedules(ground: Ground) -> Finding:
    """Whether this installation knows their time zones, and no worker has paused one that it couldn't keep.

    The server's own zones don't matter: workers compute slots by the package tzdata.
    """
    rows = await ground.ask("check_schedules")
    hopeless = [trouble for row in rows if (trouble := _trouble(row))]
    if not hopeless:
        return Finding("schedules", OK, "all can be kept: their time zones are known")
    remedy = "correct them (`asynctaskd cron change NAME`), or install a newer tzdata where workers run"
    return Finding("schedules", WARNING, f"can't be kept: {listed(hopeless)}", remedy)


def _trouble(row: asyncpg.Record) -> str | None:
    if row["because"]:
        return f"{row['name']} (paused: {row['because']})"
    try:
        zone_of(row["zone"])
    except ValueError:
        return f"{row['name']} (unknown time zone {row['zone']!r})"
    return None
