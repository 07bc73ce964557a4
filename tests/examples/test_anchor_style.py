from __future__ import annotations

import asyncio

from asynctaskd import Client, TaskStatus


async def test_the_commands_of_its_page_run_and_a_failure_is_followed_by_its_task(
    shell, commands, pool
) -> None:
    told = await asyncio.to_thread(shell, commands)

    assert "please look at key 17: FatalTaskError: key 17 is locked" in told
    failed, follower = await Client(pool).get_tasks([1, 2])
    assert (failed.status, failed.attempts) == (TaskStatus.FAILED, 1)
    assert (follower.status, follower.payload) == (TaskStatus.COMPLETED, {"taskID": 1})
    assert (follower.max_attempts, follower.result) == (4, {"told_of": 17})


async def test_a_key_that_goes_leaves_nothing_to_do(shell, pool) -> None:
    run = "asynctaskd run --app examples.anchor_style.app:app --once"
    await asyncio.to_thread(shell, f"asynctaskd enqueue deleteOpaqueKey '{{\"keyID\": 100}}'; {run}")
    assert [task.status for task in await Client(pool).list_tasks()] == [TaskStatus.COMPLETED]
