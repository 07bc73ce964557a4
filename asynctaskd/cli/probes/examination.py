"""Everything that is looked at, one after the other: none may take long, and none ends the others."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

from asynctaskd.cli.probes import (
    access,
    capacity,
    fleet,
    schedules,
    secrets,
    served,
    server,
    timing,
    upkeep,
    waste,
)
from asynctaskd.cli.probes.finding import ACCESS, FAILURE, WARNING, Finding
from asynctaskd.cli.probes.ground import LIMIT, Ground, Look
from asynctaskd.cli.probes.rights import way_to_look
from asynctaskd.errors import AsynctaskdError, DatabaseRefusedError, DatabaseUnavailableError
from asynctaskd.postgres.connection import Answer, limited
from asynctaskd.postgres.driver import translated

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
    from datetime import timedelta

    from asynctaskd.config import DaemonConfig

# When to say what is being looked at, in seconds: since the beginning, and since the look began.
_PATIENCE = 2.0
_LEAST_PATIENCE = 0.3

_WORKERS, _TASKS = "SELECT ON {schema}.workers", "SELECT ON {schema}.task_list"

_OF_THE_SERVER = (
    Look("reachable", server.reachable),
    Look("version", server.version),
    Look("tls", server.tls),
    Look("encoding", server.encoding),
    Look("primary", server.primary),
    Look("clock", server.clock),
    Look("pooler", server.pooler),
    Look("notices", server.notices),
    Look("horizon", waste.horizon, least=None),
    Look("queue", waste.queue, least=None),
)
_SCHEMA = Look("schema", access.schema, ("SELECT ON {schema}.migrations",))
_OF_THE_SCHEMA = (
    Look("rights", access.rights, if_refused=FAILURE, least="worker"),
    Look("connections", capacity.connections, (_WORKERS,)),
    Look("sequences", capacity.sequences),
    Look("autovacuum", upkeep.autovacuum),
    Look("indexes", upkeep.indexes),
    Look("partitions", upkeep.partitions),
    Look("workers", fleet.workers, (_WORKERS,)),
    Look("lost", fleet.lost, (_WORKERS, _TASKS)),
    Look("names", fleet.names, (_WORKERS, _TASKS)),
    Look("runtime", fleet.runtime, (_WORKERS, "SELECT ON {schema}.runtime_configs")),
    Look("schedules", schedules.schedules, ("SELECT ON {schema}.schedule_list",)),
)
_ALL = (*_OF_THE_SERVER, _SCHEMA, *_OF_THE_SCHEMA)

CHECKS = (ACCESS, *(look.check for look in _ALL), "secrets", "dashboard", "lease", "grace")
"""The names of all findings."""


async def examine(
    dsn: str,
    config: DaemonConfig,
    *,
    stop_timeout: timedelta | None = None,
    tell: Callable[[str], object] = lambda _: None,
) -> AsyncGenerator[Finding]:
    """Look at everything, as far as the database lets us.

    Args:
        dsn: the database.
        config: what a worker here would be.
        stop_timeout: how long whoever stops workers waits before it kills them, where that is known.
        tell: takes the name of what is being looked at where it takes a while.
    """
    ground = Ground(dsn, config)
    try:
        async for finding in _look_at_all(ground, tell):
            yield finding
    except DatabaseUnavailableError as error:
        yield Finding.unreachable(error)
    except DatabaseRefusedError as error:
        yield Finding.refused(error)
    finally:
        await ground.close()
    yield secrets.secrets(config)
    yield served.dashboard(config)
    yield timing.lease(config)
    yield timing.grace(config, stop_timeout)


async def _look_at_all(ground: Ground, tell: Callable[[str], object]) -> AsyncGenerator[Finding]:
    until = asyncio.get_running_loop().time() + _PATIENCE
    with _told("reachable", until, tell):
        await ground.connect()
        await ground.ask_server()
    for look in _ALL:
        with _told(look.check, until, tell):
            finding = await _look(look, ground)
        yield finding
        if look is _SCHEMA and finding.status == FAILURE:
            return


async def _look(look: Look, ground: Ground) -> Finding:
    """What a look finds; one that isn't answered, or isn't allowed, is a finding too.

    Raises:
        DatabaseUnavailableError: the connection is gone, and no other is to be had.
        DatabaseRefusedError: the same, since it is refused.
    """
    await ground.connect()
    try:
        return await _answer(look, ground)
    except DatabaseUnavailableError as error:
        remedy = "see what it waits for: `SELECT pid, wait_event, query FROM pg_stat_activity`"
        return Finding(look.check, WARNING, f"no answer: {error}", remedy)
    except AsynctaskdError as error:
        return Finding(look.check, FAILURE, str(error), "run `asynctaskd migrate`")


async def _answer(look: Look, ground: Ground) -> Finding:
    try:
        return await _in_time(look.ask(ground), ground)
    except DatabaseRefusedError as error:
        # In the server's words: ours name a role to grant, and who has a part is to keep to it.
        message = f"this role may not look: {error.__cause__ or error}"
        remedy = await _in_time(_way_to_look(look, ground), ground)
        return Finding(look.check, look.if_refused, message, remedy)


async def _in_time(asked: Awaitable[Answer], ground: Ground) -> Answer:
    with translated():
        return await limited(ground.connection, asked, LIMIT)


async def _way_to_look(look: Look, ground: Ground) -> str:
    if look.least is None:
        return f"GRANT pg_monitor TO {ground.server.role}"
    return await way_to_look(ground, look.least, [one.format(schema=ground.schema) for one in look.grants])


@contextmanager
def _told(check: str, until: float, tell: Callable[[str], object]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    timer = loop.call_at(max(until, loop.time() + _LEAST_PATIENCE), tell, check)
    try:
        yield
    finally:
        timer.cancel()
