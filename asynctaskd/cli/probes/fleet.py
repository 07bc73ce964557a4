"""Whether somebody works, knows what waits, and does what it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asynctaskd.cli.probes.finding import FAILURE, OK, WARNING, Finding, lasting, listed
from asynctaskd.client import Client
from asynctaskd.errors import InvalidStateError

if TYPE_CHECKING:
    import asyncpg

    from asynctaskd.cli.probes.ground import Ground


async def workers(ground: Ground) -> Finding:
    """Whether anybody works, and of which release."""
    live = await ground.live_workers()
    if live:
        versions = sorted({str(worker["version"]) for worker in live})
        return Finding("workers", OK, f"{len(live)} live, of version {' and '.join(versions)}")
    return Finding(
        "workers", WARNING, "none is live: nothing runs", "start one with `asynctaskd run --app MODULE:APP`"
    )


async def lost(ground: Ground) -> Finding:
    """Whether workers died of late, or are silent."""
    found = [_absence(row) for row in await ground.ask("check_lost")]
    if not found:
        return Finding("lost", OK, "no worker was lost within the last hour, none is silent")
    remedy = "see their logs and `dmesg`; `asynctaskd release --worker ID` puts back what one holds at once"
    return Finding("lost", WARNING, listed(found), remedy)


def _absence(row: asyncpg.Record) -> str:
    """What is wrong with a worker, in words: `web1:4711 lost 5m ago (its lease ran out), holds 3 tasks`."""
    seconds, tasks = lasting(row["seconds"]), row["tasks"]
    state = f"silent for {seconds}" if row["is_live"] else f"lost {seconds} ago"
    because = f" ({row['because']})" if row["because"] else ""
    holds = f", holds {tasks} task{'s' * (tasks > 1)}" if tasks else ""
    return f"{row['host']} {state}{because}{holds}"


async def names(ground: Ground) -> Finding:
    """Whether tasks wait under names that no live worker knows."""
    waiting = [f"{name} ({count})" for name, count in await ground.ask("check_unknown")]
    if not waiting:
        return Finding("names", OK, "no task waits for a worker that knows its name")
    remedy = "start a worker whose App declares them"
    return Finding("names", WARNING, f"no live worker knows {listed(waiting)}", remedy)


async def runtime(ground: Ground) -> Finding:
    """Whether the newest version of the runtime configuration can be read, and all workers apply it."""
    try:
        config = await Client(ground.connection, schema=ground.schema).runtime_config()
    except InvalidStateError as error:
        message, _, remedy = str(error).rpartition("; ")
        return Finding("runtime", FAILURE, message, f"{remedy} (`asynctaskd config rollback`)")
    lagging = [_lag(worker) for worker in await ground.live_workers() if _lags(worker, config.version)]
    if lagging:
        message = f"version {config.version} of the runtime configuration isn't applied by {listed(lagging)}"
        remedy = "wait for a renewal of the lease; restart those that still lag then"
        return Finding("runtime", WARNING, message, remedy)
    return Finding(
        "runtime", OK, f"all live workers apply version {config.version} of the runtime configuration"
    )


def _lags(worker: dict[str, Any], version: int) -> bool:
    return int(worker["applied_config_version"]) < version


def _lag(worker: dict[str, Any]) -> str:
    place = f"{worker['hostname']}:{worker['pid']} (it applies {worker['applied_config_version']}"
    rejected = worker["rejected_because"]
    return f"{place}, rejected: {rejected})" if rejected else f"{place})"
