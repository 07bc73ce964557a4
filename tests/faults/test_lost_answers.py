"""A statement or the answer to it gets lost: nobody guesses, whoever asked finds out.

Each test loses one message of a real worker and has its connection reset, as a failing network does.
"""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from asynctaskd import Client
from asynctaskd.errors import DatabaseUnavailableError

BOTH = pytest.mark.parametrize("lost", ["request", "reply"])


async def test_a_claim_whose_answer_got_lost_is_put_back_and_runs_once(
    worker, tables, client, witness, proxy
):
    async with worker(proxy.dsn):
        await tables.until_idle()
        loss = proxy.lose("claim")
        task_id = await client.enqueue("quick")
        done = await client.wait(task_id, timeout="30s")
    assert loss.done.is_set()
    assert (done.attempts, done.losses) == (1, 0)
    assert len(witness.said("ran", task_id)) == 1
    assert await tables.kinds(task_id) == ["released"]


@BOTH
async def test_a_finalize_is_repeated_until_it_is_known_and_written_once(
    worker, tables, client, witness, go_on, proxy, lost
):
    task_id = await client.enqueue("hold")
    async with worker(proxy.dsn) as process:
        await witness.until("start", task_id)
        loss = proxy.lose("finalize", lost)
        go_on.touch()
        await asyncio.wait_for(loss.done.wait(), 60)
        done = await client.wait(task_id, timeout="30s")
        assert (done.attempts, done.result) == (1, f"by {process.pid}")
        later = await client.enqueue("quick")  # its slot came free, and nothing is confused
        await client.wait(later, timeout="30s")
    assert len(witness.said("start", task_id)) == 1
    assert await tables.kinds(task_id) == []


@BOTH
async def test_a_failure_hooks_commit_that_got_lost_leaves_one_write_and_one_status(
    worker, tables, client, witness, go_on, proxy, lost
):
    task_id = await client.enqueue("doomed")
    async with worker(proxy.dsn):
        await witness.until("hook", task_id)
        loss = proxy.lose("commit", lost)
        go_on.touch()
        await asyncio.wait_for(loss.done.wait(), 60)
        await tables.until_status(task_id, "failed")
        await tables.until("SELECT bool_and(running = 0) FROM asynctaskd.workers")
    assert await tables.written(task_id) == ["mourned"]
    assert len(witness.said("start", task_id)) == 1
    assert len(witness.said("hook", task_id)) == {"request": 2, "reply": 1}[lost]
    assert await tables.kinds(task_id) == ["failed"]


@BOTH
async def test_a_commit_of_ctx_transaction_that_got_lost_completes_the_task_once(
    worker, tables, client, witness, proxy, lost
):
    async with worker(proxy.dsn):
        await tables.until_idle()
        loss = proxy.lose("commit", lost)
        task_id = await client.enqueue("book")
        await asyncio.wait_for(loss.done.wait(), 60)
        done = await client.wait(task_id, timeout="30s")
    assert (done.attempts, done.losses) == (1, 0)
    assert await tables.written(task_id) == ["booked"]
    assert len(witness.said("start", task_id)) == {"request": 2, "reply": 1}[lost]


async def test_an_enqueue_whose_answer_got_lost_may_be_said_again_with_its_unique_tag(tables, proxy):
    async with asyncpg.create_pool(proxy.dsn, min_size=1) as pool:
        client = Client(pool)
        loss = proxy.lose("enqueue")
        with pytest.raises(DatabaseUnavailableError):
            await client.enqueue("quick", unique_tag="once")
        assert loss.done.is_set()
        task_id = await client.enqueue("quick", unique_tag="once")
    assert await tables.value("SELECT array_agg(id) FROM asynctaskd.tasks") == [task_id]
