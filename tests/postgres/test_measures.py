"""What waits is counted where it is little and estimated where it is much, at the same cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asynctaskd.postgres.measures import MeasureStore

if TYPE_CHECKING:
    import asyncpg

    from asynctaskd.postgres.measures import Waiting


@pytest.fixture
def waiting(pool: asyncpg.Pool):
    """What is measured, by label set."""

    async def measure() -> dict[str | None, Waiting]:
        return {one.label_set: one for one in await MeasureStore(pool, "asynctaskd").waiting()}

    return measure


@pytest.fixture
def fill(pool: asyncpg.Pool):
    """Put tasks into the queue; columns beside the id are given in SQL, `n` counts from 1."""

    async def write(count: int, **columns: str) -> None:
        given = {"status": "'pending'", "name": "'x'", "payload": "'{}'"} | columns
        await pool.execute(
            f"INSERT INTO asynctaskd.tasks (id, {', '.join(given)})"
            f" SELECT nextval('asynctaskd.task_ids'), {', '.join(given.values())}"
            f" FROM generate_series(1, {count}) AS n"
        )

    return write


async def test_nothing_waits_in_an_empty_queue(waiting):
    assert await waiting() == {}


async def test_what_is_little_is_counted_exactly(waiting, fill):
    await fill(7)
    await fill(40, label_set="'mail'", weight="1 + n % 3")
    await fill(5, priority="2")
    await fill(3, priority="2147483647", label_set="'!control'")
    await fill(9, status="'scheduled'", run_at="clock_timestamp() + interval '1 h'")
    assert {label_set: one.tasks for label_set, one in (await waiting()).items()} == {
        "": 7,
        "mail": 40,
        None: 5,
    }


async def test_what_is_much_is_estimated(waiting, fill):
    await fill(60_000, label_set="CASE WHEN n % 10 = 0 THEN 'mail' ELSE '' END")
    await fill(20_000, label_set="'late'")
    await fill(30_000, priority="1")
    told = await waiting()
    assert told[""].tasks == pytest.approx(54_000, rel=0.05)
    assert told["mail"].tasks == pytest.approx(6_000, rel=0.05)
    assert told["late"].tasks == pytest.approx(20_000, rel=0.05)
    assert told[None].tasks == pytest.approx(30_000, rel=0.05)


async def test_many_label_sets_and_weights_are_counted_too(waiting, fill):
    await fill(6_000, label_set="'set' || n % 300", weight="1 + n % 2")
    told = await waiting()
    assert len(told) == 300
    assert {one.tasks for one in told.values()} == {20}


async def test_a_task_is_as_old_as_it_is_due(waiting, fill):
    await fill(
        1, created_at="clock_timestamp() - interval '1 day'", run_at="clock_timestamp() - interval '5 s'"
    )
    await fill(1, created_at="clock_timestamp() - interval '1 minute'")
    await fill(1, label_set="'mail'", run_at="clock_timestamp() + interval '1 minute'")
    told = await waiting()
    assert 60 <= told[""].oldest < 90
    assert told["mail"].oldest == 0
