"""Who keeps the server from cleaning up: rows that nobody sees any more, notices that all have heard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctaskd.cli.probes.finding import FAILURE, OK, WARNING, Finding, lasting, listed
from asynctaskd.cli.probes.rights import way_to_see_all

if TYPE_CHECKING:
    import asyncpg

    from asynctaskd.cli.probes.ground import Ground

# Where claims begin to feel dead rows: by time, and where nobody knows since when, by transactions.
_MOST_SECONDS = 300.0
_MOST_TRANSACTIONS = 100_000

# Shares of the queue of notices. Where it is full, enqueuing fails.
_MUCH_QUEUED = 0.1
_NEARLY_FULL = 0.5

_REMEDIES = {
    "session": "end it with SELECT pg_terminate_backend({pid}), and set idle_in_transaction_session_timeout",
    "prepared transaction": "COMMIT PREPARED or ROLLBACK PREPARED it",
    "replication slot": "have its standby catch up, or drop it with pg_drop_replication_slot",
    "standby": "end the long query there, or set hot_standby_feedback = off on it",
}


async def horizon(ground: Ground) -> Finding:
    """Whether some old transaction keeps dead rows alive, and whose."""
    rows = await ground.ask("check_horizon")
    old = [row for row in rows if _is_old(row)]
    if old:
        remedy = _REMEDIES[old[0]["kind"]].format(pid=old[0]["pid"])
        message = f"dead rows can't be cleaned up for {listed([_holder(row) for row in old])}"
        return Finding("horizon", WARNING, message, remedy)
    if not ground.server.sees_all:
        message = "nobody is seen who keeps dead rows, but this role sees little of others' sessions"
        return Finding("horizon", WARNING, message, await way_to_see_all(ground))
    oldest = f"; the oldest transaction is {_holder(rows[0])}" if rows else ""
    return Finding("horizon", OK, f"dead rows can be cleaned up{oldest}")


def _is_old(row: asyncpg.Record) -> bool:
    seconds: float | None = row["seconds"]
    return row["transactions"] > _MOST_TRANSACTIONS if seconds is None else seconds > _MOST_SECONDS


def _holder(row: asyncpg.Record) -> str:
    """Who it is, in words: `session 4711 of shop as reporting (idle in transaction), since 2h`."""
    name = f"{row['kind']} {row['name']}" + (f" of {row['owner']}" if row["owner"] else "")
    application = f" as {row['application']}" if row["application"] else ""
    state = f" ({row['state']})" if row["state"] else ""
    since = f"{row['transactions']:,} transactions" if row["seconds"] is None else lasting(row["seconds"])
    return f"{name}{application}{state}, for {since}"


async def queue(ground: Ground) -> Finding:
    """Whether notices pile up behind a session that listens and doesn't hear."""
    [(usage,)] = await ground.ask("check_queue")
    message = f"{usage:.2%} of the queue of notices is in use"
    if usage < _MUCH_QUEUED:
        return Finding("queue", OK, message)
    open_ones = [_holder(row) for row in await ground.ask("check_transactions")]
    suspects = f"; perhaps {listed(open_ones)}" if open_ones else ""
    remedy = "end the session that listens and has a transaction open: pg_terminate_backend(pid)"
    if not ground.server.sees_all:
        remedy += f"; {await way_to_see_all(ground)}"
    status = FAILURE if usage >= _NEARLY_FULL else WARNING
    return Finding("queue", status, f"{message}: where it is full, nothing can be enqueued{suspects}", remedy)
