"""What holds for every live task, checked by the database itself in tests and chaos runs."""

from __future__ import annotations

from pathlib import Path

import asyncpg

_SQL = Path(__file__).with_suffix(".sql")


async def uphold(dsn: str) -> None:
    """Add the rules to a migrated database."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(_SQL.read_text(encoding="utf8"))
    finally:
        await connection.close()
