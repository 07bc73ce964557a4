"""One task per slot, whatever dies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.acceptance.cron_race import race


async def test_processes_that_race_and_die_make_one_task_per_slot(database: Any, tmp_path: Path) -> None:
    result = await race(database.dsn, tmp_path, processes=3, slots=10, victims=1, every=2.0)
    assert result.problems() == []
    assert result.kills >= 3
