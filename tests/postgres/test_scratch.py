"""The databases of tests: made once, copied, and good for as long as a run of tests takes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from asynctaskd.postgres.scratch import connected, drop_database, make_template, with_database

FIRST_DAY = """
    SELECT min(to_date(right(inhrelid::regclass::text, 8), 'YYYYMMDD')) FROM pg_inherits
    WHERE inhparent = 'asynctaskd.finished_tasks'::regclass
"""


async def test_in_a_run_that_goes_on_past_midnight_no_partition_is_due_in_a_copy(dsn, asynctaskd_template):
    name = f"{asynctaskd_template}_midnight"
    today = datetime.now(UTC).date()
    try:
        await make_template(dsn, name)
        async with connected(with_database(dsn, name)) as connection:
            assert await connection.fetchval(FIRST_DAY) >= today + timedelta(days=2)
    finally:
        await drop_database(dsn, name)
