"""Install the audit: triggers with which the database itself records what happens in it."""

from __future__ import annotations

from pathlib import Path

import asyncpg

_SQL = Path(__file__).with_name("audit.sql")
_INVARIANTS = Path(__file__).parent.parent / "support" / "invariants.sql"


async def install(dsn: str) -> None:
    """Put the triggers, the schema `chaos` and the rules that every row keeps into a migrated database."""
    connection = await asyncpg.connect(dsn)
    try:
        for file in (_INVARIANTS, _SQL):
            await connection.execute(file.read_text(encoding="utf8"))
    finally:
        await connection.close()
