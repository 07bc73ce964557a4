"""Install the audit: triggers with which the database itself records what happens in it."""

from __future__ import annotations

from pathlib import Path

import asyncpg

_SQL = Path(__file__).with_name("audit.sql")


async def install(dsn: str) -> None:
    """Put the triggers and the schema `chaos` into a migrated database."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(_SQL.read_text(encoding="utf8"))
    finally:
        await connection.close()
