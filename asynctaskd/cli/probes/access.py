"""The schema, and what this role may do in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctaskd.cli.probes.finding import FAILURE, OK, WARNING, Finding, listed
from asynctaskd.cli.probes.rights import parts_of
from asynctaskd.errors import SchemaVersionError
from asynctaskd.postgres.migrate import require_version
from asynctaskd.postgres.roles import has_roles

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
    """Whether this role may do what a worker does, or at least has another part."""
    missing = [row[0] for row in await ground.ask("check_rights")]
    if not missing:
        return Finding("rights", OK, "this role may do what a worker does")
    parts = await parts_of(ground)
    if not parts and not await ground.ask("check_enqueue_rights"):
        parts = ["enqueuer"]
    role = ground.server.role if not parts else "it"
    grant = f"GRANT {ground.schema}_worker TO {role}"
    if not await has_roles(ground.connection, ground.schema):
        grant = (
            f"`asynctaskd migrate --roles`, then {grant}; or have the schema's owner grant what is missing"
        )
    if not parts:
        return Finding("rights", FAILURE, f"this role lacks {listed(missing)}", grant)
    message = f"this role is for {' and '.join(f'{part}s' for part in parts)}, and a worker can't run as it"
    return Finding("rights", WARNING, message, f"give a worker a login of its own: {grant}")
