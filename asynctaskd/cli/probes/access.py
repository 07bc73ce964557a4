"""The schema, and what this role may do in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctaskd.cli.probes.finding import FAILURE, OK, WARNING, Finding, listed
from asynctaskd.errors import SchemaVersionError
from asynctaskd.postgres.migrate import require_version

if TYPE_CHECKING:
    from asynctaskd.cli.probes.ground import Ground


async def schema(ground: Ground) -> Finding:
    """Whether the schema is one that this version can work with."""
    try:
        major, minor = await require_version(ground.connection, schema=ground.schema)
    except SchemaVersionError as error:
        message, _, remedy = str(error).partition(": ")
        return Finding("schema", FAILURE, message, remedy or None)
    return Finding("schema", OK, f"{ground.schema!r} has version {major}.{minor}")


async def rights(ground: Ground) -> Finding:
    """Whether this role may do what a worker does, or at least what an enqueuer does."""
    missing = [row[0] for row in await ground.ask("check_rights")]
    if not missing:
        return Finding("rights", OK, "this role may do what a worker does")
    group = f"{ground.schema}_worker (`asynctaskd migrate --roles` makes it)"
    if await ground.ask("check_enqueue_rights"):
        remedy = f"GRANT it {group}, or {ground.schema}_enqueuer where it only enqueues"
        return Finding("rights", FAILURE, f"this role lacks {listed(missing)}", remedy)
    message = f"this role may enqueue, and isn't made for a worker: it lacks {listed(missing)}"
    return Finding("rights", WARNING, message, f"GRANT it {group} if a worker is to run as it")
