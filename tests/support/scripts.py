"""Files of SQL that a test's database is given beside its migrations."""

from __future__ import annotations

from pathlib import Path

import asyncpg

INVARIANTS = Path(__file__).with_name("invariants.sql").read_text(encoding="utf8")
"""What holds for every live task, checked by the database itself."""


async def run_script(dsn: str, script: str) -> None:
    """Run its statements in one go, on a connection of their own."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(script)
    finally:
        await connection.close()
