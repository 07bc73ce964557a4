"""Install the audit: triggers with which the database itself records what happens in it."""

from __future__ import annotations

from pathlib import Path

from asynctaskd.postgres.scratch import run_script

_SQL = Path(__file__).with_name("audit.sql").read_text(encoding="utf8")


async def install(dsn: str) -> None:
    """Put the triggers and the schema `chaos` into a migrated database."""
    await run_script(dsn, _SQL)
