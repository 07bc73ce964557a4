"""Clocks that are wrong: the workers' don't matter, and the database's can only shift leases."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

COMPILER = shutil.which("cc") or shutil.which("gcc")


@pytest.fixture
def lying_clock(tmp_path: Path) -> dict[str, str]:
    """The environment of a process whose wall clock steps by two hours each second."""
    library = tmp_path / "lying_clock.so"
    source = Path(__file__).with_name("lying_clock.c")
    subprocess.run([str(COMPILER), "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return {"LD_PRELOAD": str(library)}


@pytest.mark.skipif(sys.platform != "linux" or COMPILER is None, reason="a C compiler makes the clock lie")
async def test_a_worker_whose_clock_steps_by_hours_loses_nothing_and_starts_nothing_early(
    worker, tables, client, witness, go_on, lying_clock
):
    async with worker(environ=lying_clock) as process, worker():
        await tables.until_idle(workers=2)
        held = [await client.enqueue("hold") for _ in range(4)]
        for task_id in held:
            await witness.until("start", task_id)
        later = [await client.enqueue("quick", delay="2s", timeout="1h") for _ in range(10)]
        done = [await client.wait(task_id, timeout="30s") for task_id in later]
        await tables.until("SELECT bool_and(renewed_at > started_at + '4 s') FROM asynctaskd.workers")
        go_on.touch()
        done += [await client.wait(task_id, timeout="30s") for task_id in held]
        started = await process.until_logged("worker.started")
        actually = await tables.value("SELECT min(started_at) FROM asynctaskd.workers")
    assert abs((datetime.fromisoformat(started["ts"]) - actually).total_seconds()) > 3000
    assert {(task.attempts, task.losses) for task in done} == {(1, 0)}
    assert all(task.claimed_at >= task.run_at for task in done[: len(later)])
    assert await tables.value("SELECT count(*) FROM asynctaskd.task_events") == 0
    assert await tables.value("SELECT count(*) FROM asynctaskd.workers") == 2


async def test_a_step_of_the_databases_clock_moves_leases_and_lets_no_result_in_twice(
    worker, tables, client, witness, go_on
):
    async def step(hours: int) -> None:
        await tables.execute(
            "CREATE OR REPLACE FUNCTION asynctaskd.clock() RETURNS timestamptz LANGUAGE sql VOLATILE"
            f" PARALLEL SAFE RETURN clock_timestamp() + interval '{hours} hours'"
        )

    async with worker(), worker():
        await tables.until_idle(workers=2)
        held = [await client.enqueue("hold") for _ in range(6)]
        for task_id in held:
            await witness.until("start", task_id)
        await step(1)  # every lease ends at once
        await tables.until_idle(workers=2)
        for task_id in held:
            # On a slow machine some are lost twice, and run one at a time. And a handler that ends when it is
            # told may come before whoever would put its task back.
            await tables.until(
                "SELECT status <> 'pending' OR losses > 1 FROM asynctaskd.all_tasks WHERE id = $1", task_id
            )
        await step(0)  # every lease is an hour longer, until it is renewed
        last = await client.enqueue("quick")
        await client.wait(last, timeout="30s")
        go_on.touch()
        for task_id in held:
            await tables.until_status(task_id, "completed")
    for task_id in held:
        tokens = await tables.value(
            "SELECT coalesce(array_agg(claim_token), '{}') FROM asynctaskd.task_events"
            " WHERE task_id = $1 AND kind = 'lease_lost'",
            task_id,
        )
        assert len(tokens) == len(set(tokens))
        done = await tables.value("SELECT claim_token FROM asynctaskd.finished_tasks WHERE id = $1", task_id)
        assert done > max(tokens, default=0)
