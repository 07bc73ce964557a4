"""A log that nobody reads holds up no task and no shutdown."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from signal import SIGTERM

import pytest

CHATTY = 300  # lines of 500 characters: more than twice what a pipe holds


@pytest.fixture
def pipe():
    """A pipe's two ends, as file descriptors; closed at the end."""
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:  # the test has closed it
            pass


async def test_a_pipe_that_nobody_reads_holds_up_neither_tasks_nor_the_end(worker, tables, client, pipe):
    async with worker(stderr=pipe[1]) as process:
        ids = [await client.enqueue("chatty") for _ in range(CHATTY)]
        for task_id in ids:
            await client.wait(task_id, timeout="30s")
        last = await client.enqueue("quick")
        assert (await client.wait(last, timeout="30s")).attempts == 1
        process.tell(SIGTERM)
        assert await process.ended() == 0
    assert await tables.value("SELECT count(*) FROM asynctaskd.task_events") == 0
    assert await tables.value("SELECT stopped_at IS NOT NULL AND lost_at IS NULL FROM asynctaskd.workers")


async def test_a_task_that_is_given_back_does_not_wait_for_a_blocked_pipe(
    worker, tables, client, witness, pipe, go_on
):
    async with worker(stderr=pipe[1], grace="0s") as first:
        for task_id in [await client.enqueue("chatty") for _ in range(CHATTY)]:
            await client.wait(task_id, timeout="30s")
        held = await client.enqueue("work")
        await witness.until("start", held)
        async with worker():
            await tables.until_idle(workers=2)
            told_at = witness.now()
            first.tell(SIGTERM)
            again = await witness.until("start", held, times=2)
            assert again.at - told_at < 2.0
            assert await first.ended() == 0
            go_on.touch()
            assert (await client.wait(held, timeout="30s")).attempts == 1


async def test_a_pipe_whose_reader_has_gone_costs_its_lines_and_no_task(worker, tables, client, pipe):
    async with worker(stderr=pipe[1]) as process:
        await tables.until_idle()
        os.close(pipe[0])
        for task_id in [await client.enqueue("chatty") for _ in range(CHATTY)]:
            await client.wait(task_id, timeout="30s")
        process.tell(SIGTERM)
        assert await process.ended() == 0


@pytest.mark.parametrize("reader", ["gone", "asleep"])
async def test_output_that_nobody_reads_keeps_no_process_from_ending_hard(reader):
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    if reader == "gone":
        os.close(ours)
    else:
        with suppress(BlockingIOError):
            while True:
                os.write(theirs, bytes(65536))
        os.set_blocking(theirs, True)
    script = "from asynctaskd.cli.stopping import exit_hard; print('x'); exit_hard(3)"
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=theirs, env=buffered)
    async with asyncio.timeout(20):
        assert await process.wait() == 3
    os.close(theirs)
