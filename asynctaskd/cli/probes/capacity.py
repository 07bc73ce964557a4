"""Whether there is enough: connections, and numbers for ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctaskd.cli.probes.finding import FAILURE, OK, WARNING, Finding, listed
from asynctaskd.cli.probes.rights import way_to_look
from asynctaskd.postgres.store import CONNECTIONS

if TYPE_CHECKING:
    from asynctaskd.cli.probes.ground import Ground
    from asynctaskd.config import DaemonConfig

# Shares of a sequence's numbers.
_MUCH_USED = 0.5
_NEARLY_ALL_USED = 0.9


async def connections(ground: Ground) -> Finding:
    """Whether all workers, if they are configured like this one, find connections beside all others."""
    count, each = max(len(await ground.live_workers()), 1), connections_of(ground.config)
    [(bound, allowed, others)] = await ground.ask("check_connections")
    message = (
        f"{count} × {each} = {count * each} at most for {count} worker{'s' * (count > 1)}; "
        f"{bound} leaves {allowed}, others hold {others}"
    )
    if ground.connection.is_pooled or count * each + others <= allowed:
        return Finding("connections", OK, message)
    remedy = f"raise {bound}, lower database.pool_size, or run fewer workers with more concurrency"
    return Finding("connections", WARNING, message, remedy)


def connections_of(config: DaemonConfig) -> int:
    """How many connections a worker has at most: its own, the lease's, two that listen, and its tasks'."""
    listening = 0 if config.database.listen == "off" else 2
    return CONNECTIONS + 1 + listening + config.database.pool_size


async def sequences(ground: Ground) -> Finding:
    """Whether ids are left for a long time."""
    rows = await ground.ask("check_sequences")
    used = {name: last / most for name, last, most in rows if last is not None}
    unseen = [name for name, last, _ in rows if last is None]
    worn = [f"{name} ({share:.0%} used)" for name, share in used.items() if share >= _MUCH_USED]
    if worn:
        is_near = max(used.values()) >= _NEARLY_ALL_USED
        remedy = "find out what uses so many numbers; a fresh schema begins at 1 (`--schema`)"
        return Finding("sequences", FAILURE if is_near else WARNING, f"running out: {listed(worn)}", remedy)
    if unseen:
        remedy = await way_to_look(ground, "worker", [f"SELECT ON ALL SEQUENCES IN SCHEMA {ground.schema}"])
        return Finding("sequences", WARNING, f"this role may not look at {listed(unseen)}", remedy)
    return Finding("sequences", OK, f"{max(used.values(), default=0):.0%} of the numbers are used at most")
