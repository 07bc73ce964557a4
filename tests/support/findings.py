"""What `asynctaskd check` finds, without the command around it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from asynctaskd.cli.probes import Finding, examination
from asynctaskd.config import DaemonConfig

if TYPE_CHECKING:
    import asyncpg


async def findings_at(dsn: str, **options: Any) -> dict[str, Finding]:
    """The findings at a database, by what was checked."""
    config = DaemonConfig.model_validate({"database": {"url": dsn}})
    return {one.check: one async for one in examination.examine(dsn, config, **options)}


@asynccontextmanager
async def role_with(connection: asyncpg.Connection, dsn: str, *grants: str) -> AsyncIterator[tuple[str, str]]:
    """A role that has these rights (`SELECT ON …`) in this database; its name, and the database by it."""
    role = f"asynctaskd_test_{uuid4().hex[:12]}"
    await connection.execute(f"CREATE ROLE {role}")
    try:
        for grant in grants:
            await connection.execute(f"GRANT {grant} TO {role}")
        yield role, f"{dsn}{'&' if '?' in dsn else '?'}role={role}"
    finally:
        await connection.execute(f"DROP OWNED BY {role}")
        await connection.execute(f"DROP ROLE {role}")
