"""What an autoscaler is told: what runs and what could start now, at a cost that doesn't grow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest

from asynctaskd import Client

if TYPE_CHECKING:
    import asyncpg

    from tests.conftest import Pool


@dataclass(frozen=True)
class Queue:
    """A client, and what the view says."""

    client: Client
    pool: Pool

    async def add(self, labels: str = "", *, times: int = 1, name: str = "a", **options: Any) -> None:
        for _ in range(times):
            await self.client.enqueue(name, labels=labels.split(), **options)

    async def add_many(self, count: int, labels: str = "") -> None:
        await self.pool.execute(
            "SELECT asynctaskd.enqueue_many(array_fill('a'::text, ARRAY[$1::int]),"
            " array_fill('{}'::jsonb, ARRAY[$1]), labels => array_fill($2::text, ARRAY[$1]))",
            count, labels,
        )  # fmt: skip

    async def run(self, count: int = 1, labels: str = "") -> None:
        await self.pool.execute(
            "UPDATE asynctaskd.tasks SET status = 'running', worker_id = $1, claim_token = 1, attempts = 1,"
            " claimed_at = clock_timestamp() WHERE id IN"
            " (SELECT id FROM asynctaskd.tasks WHERE label_set = $3 AND status = 'pending' LIMIT $2)",
            UUID(int=1), count, labels,
        )  # fmt: skip

    async def slots(self) -> dict[str, tuple[int, int]]:
        """By labels: what runs, and what could."""
        rows = await self.pool.fetch("SELECT * FROM asynctaskd.desired_slots ORDER BY labels")
        assert all(row["slots"] == row["running"] + row["ready"] for row in rows)
        return {" ".join(row["labels"]): (row["running"], row["ready"]) for row in rows}


@pytest.fixture
async def queue(pool: Pool) -> Queue:
    """With a worker that is gone: it holds what runs, and nobody is waited for."""
    await pool.execute(
        "INSERT INTO asynctaskd.workers"
        " (id, name, hostname, pid, version, labels, names, concurrency, expires_at)"
        " VALUES ($1, $1, 'h', 1, '0', '{a,b}', '{a}', 9, clock_timestamp() - interval '1 h')",
        UUID(int=1),
    )
    return Queue(Client(pool), pool)


async def test_an_empty_queue_wants_nothing_and_a_sum_can_be_made_of_it(queue: Queue) -> None:
    assert await queue.slots() == {}
    assert await queue.pool.fetchval("SELECT coalesce(sum(slots), 0) FROM asynctaskd.desired_slots") == 0


async def test_what_runs_and_what_is_ready_count_by_label_set_in_both_lanes(queue: Queue) -> None:
    await queue.add(times=3)
    await queue.add(priority=1)
    await queue.add("a", times=2)
    await queue.add("b a")
    await queue.run(2)
    await queue.run(2, labels="a")
    assert await queue.slots() == {"": (2, 2), "a": (2, 0), "a b": (0, 1)}


async def test_what_cant_start_now_doesnt_count(queue: Queue) -> None:
    await queue.add(delay="1s")
    await queue.add(deadline="1s")
    await queue.add(serial_key="k", times=3)
    await queue.pool.execute(
        "UPDATE asynctaskd.tasks SET deadline = clock_timestamp() WHERE deadline IS NOT NULL"
    )
    assert await queue.slots() == {"": (0, 1)}


async def test_paused_labels_and_names_and_a_closed_strict_lane_dont_count(queue: Queue) -> None:
    await queue.add("a b")
    await queue.add("b", times=2)
    await queue.add("b", name="other")
    await queue.add(priority=1)
    await queue.run(labels="a,b")
    await queue.client.update_runtime_config(
        paused_labels=["a"], paused_names=["other"], max_strict_percentage=0
    )
    assert await queue.slots() == {"a b": (1, 0), "b": (0, 2)}


async def test_a_limit_caps_what_all_that_carry_its_label_want_together(queue: Queue) -> None:
    await queue.add("a", times=4)
    await queue.add("a b", times=4)
    await queue.add("b", times=4)
    await queue.run(2, labels="a,b")
    await queue.client.update_runtime_config(limits={"a": 5, "b": 0})
    assert await queue.slots() == {"a": (0, 3), "a b": (2, 0), "b": (0, 0)}


async def test_suspects_count_and_control_tasks_dont(queue: Queue) -> None:
    await queue.add("a")
    await queue.pool.execute("UPDATE asynctaskd.tasks SET losses = 2")
    await queue.pool.execute("UPDATE asynctaskd.workers SET expires_at = clock_timestamp() + interval '1 h'")
    await queue.client.request_runtime_config(weights={"a": 2})
    assert await queue.pool.fetchval("SELECT count(*) FROM asynctaskd.tasks WHERE label_set = '!control'")
    assert await queue.slots() == {"a": (0, 1)}


async def test_a_long_backlog_is_counted_no_farther_than_a_scaler_needs(queue: Queue) -> None:
    await queue.add_many(12_000)
    await queue.add_many(5, labels="a")
    assert await queue.slots() == {"": (0, 10_000), "a": (0, 5)}


async def test_its_cost_doesnt_grow_with_the_backlog(queue: Queue) -> None:
    async def looked_at() -> int:
        """Index entries and rows that one look went through, as the server counts."""
        async with queue.pool.acquire() as connection, connection.transaction():
            count = "SELECT coalesce(sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)), 0)::bigint"
            count += " FROM pg_stat_xact_user_tables WHERE schemaname = 'asynctaskd' AND relname = 'tasks'"
            before = await connection.fetchval(count)
            await connection.fetch("SELECT * FROM asynctaskd.desired_slots")
            looked: int = await connection.fetchval(count)
            return looked - before

    await queue.add_many(11_000)
    few = await looked_at()
    await queue.add_many(40_000)
    assert await looked_at() <= few + 10
    assert 10_000 <= few <= 10_100


async def test_who_may_read_the_view_need_not_read_tasks(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    await queue.add()
    role = f"viewer_{uuid4().hex}"
    await connection.execute(f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA asynctaskd TO {role}")
    try:
        await connection.execute(f"GRANT SELECT ON asynctaskd.desired_slots TO {role}")
        await connection.execute(f"GRANT EXECUTE ON FUNCTION asynctaskd.count_desired_slots TO {role}")
        await connection.execute(f"SET ROLE {role}")
        assert await connection.fetchval("SELECT sum(slots) FROM asynctaskd.desired_slots") == 1
        with pytest.raises(Exception, match="permission denied"):
            await connection.fetch("SELECT * FROM asynctaskd.tasks")
    finally:
        await connection.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")
