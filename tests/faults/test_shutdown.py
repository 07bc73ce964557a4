"""What a worker drops when it is told to stop is taken up elsewhere at once."""

from __future__ import annotations

from signal import SIGTERM

import pytest


async def test_an_idle_worker_ends_at_the_first_signal_and_is_written_down_as_stopped(worker, tables):
    async with worker() as process:
        await tables.until_idle()
        process.tell(SIGTERM)
        assert await process.ended() == 0
    assert await tables.value("SELECT stopped_at IS NOT NULL AND lost_at IS NULL FROM asynctaskd.workers")


@pytest.mark.parametrize("signals", [1, 2], ids=["grace over", "second signal"])
async def test_what_was_given_back_runs_elsewhere_within_two_seconds(
    worker, tables, client, witness, go_on, signals
):
    async with worker(grace="0s" if signals == 1 else "1h") as first:
        task_id = await client.enqueue("work")
        await witness.until("start", task_id)
        async with worker() as second:
            await tables.until_idle(workers=2)
            told_at = witness.now()
            for _ in range(signals):
                first.tell(SIGTERM)
                await first.until_logged("worker.stopping")
            again = await witness.until("start", task_id, times=2)
            assert again.pid == second.pid
            assert again.at - told_at < 2.0
            assert await first.ended() == 0
            go_on.touch()
            done = await client.wait(task_id, timeout="30s")
    assert (done.attempts, done.losses) == (1, 0)
    assert await tables.kinds(task_id) == ["released"]


async def test_a_handler_that_ends_in_its_grace_is_not_run_again(worker, tables, client, witness, go_on):
    async with worker(grace="20s") as first, worker():
        task_id = await client.enqueue("work")
        at_work = await witness.until("start", task_id)
        await tables.until_idle(workers=2)
        first.tell(SIGTERM)
        await first.until_logged("worker.stopping")
        go_on.touch()
        assert await first.ended() == 0
        done = await client.wait(task_id, timeout="30s")
    assert (done.attempts, done.result) == (1, f"by {at_work.pid}")
    assert await tables.kinds(task_id) == []
