"""A worker that is frozen or cut off for longer than its lease, and then comes back."""

from __future__ import annotations

from signal import SIGCONT, SIGSTOP


async def test_a_process_frozen_for_longer_than_its_lease_takes_no_step_of_work_when_it_wakes(
    worker, tables, client, witness, go_on
):
    async with worker() as first:
        await tables.until_idle()
        task_id = await client.enqueue("hold")
        await witness.until("start", task_id)
        first.tell(SIGSTOP)
        await first.until_stopped()
        done_so_far = len(witness.said("step", task_id))
        async with worker() as second:
            await witness.until("start", task_id, times=2)
            first.tell(SIGCONT)
            assert (await witness.until("told", task_id)).pid == first.pid
            await tables.until_event(task_id, "stale_result")
            go_on.touch()
            done = await client.wait(task_id, timeout="30s")
            assert (done.result, done.losses) == (f"by {second.pid}", 0)
            # It goes on under a new identity.
            await tables.until("SELECT count(*) = 1 FROM asynctaskd.workers WHERE lost_at IS NOT NULL")
            await tables.until_idle(workers=2)
    assert len([one for one in witness.said("step", task_id) if one.pid == first.pid]) == done_so_far
    assert await tables.kinds(task_id) == ["lease_lost", "stale_result"]


async def test_a_process_frozen_for_less_than_its_lease_goes_on_as_if_nothing_had_happened(
    worker, tables, client, witness, go_on
):
    async with worker(lease="15s", renew_interval="100ms") as first:
        task_id = await client.enqueue("hold")
        await witness.until("start", task_id)
        first.tell(SIGSTOP)
        await first.until_stopped()
        async with worker():
            await tables.until_idle()
            await client.wait(await client.enqueue("quick"), timeout="30s")
            first.tell(SIGCONT)
            go_on.touch()
            done = await client.wait(task_id, timeout="30s")
    assert (done.result, done.attempts) == (f"by {first.pid}", 1)
    assert await tables.kinds(task_id) == []
    assert first.events("lease.lost") == []


async def test_a_process_frozen_in_its_failure_hook_does_not_keep_its_task_from_others(
    worker, tables, client, witness, go_on
):
    task_id = await client.enqueue("doomed")
    async with worker() as first:
        await witness.until("hook", task_id)
        first.tell(SIGSTOP)
        await first.until_stopped()
        go_on.touch()
        async with worker() as second:
            await tables.until_status(task_id, "failed")
            assert [one.pid for one in witness.said("hook", task_id)] == [first.pid, second.pid]
            first.tell(SIGCONT)
            await first.until_logged("lease.lost")
            await tables.until_idle(workers=2)
    assert await tables.written(task_id) == ["mourned"]
    assert (await tables.kinds(task_id))[:2] == ["lease_lost", "failed"]


async def test_a_worker_that_is_cut_off_stops_its_work_before_others_may_begin_it(
    worker, tables, client, witness, go_on, proxy
):
    async with worker(proxy.dsn) as first:
        await tables.until_idle()
        task_id = await client.enqueue("hold")
        await witness.until("start", task_id)
        proxy.silence()
        async with worker() as second:
            again = await witness.until("start", task_id, times=2)
            [told] = witness.said("told", task_id)
            assert (told.pid, again.pid) == (first.pid, second.pid)
            assert told.at < again.at
            assert max(one.at for one in witness.said("step", task_id) if one.pid == first.pid) < again.at
            await proxy.restore()
            await tables.until_event(task_id, "stale_result")
            await tables.until_idle(workers=2)
            go_on.touch()
            done = await client.wait(task_id, timeout="30s")
            assert done.result == f"by {second.pid}"
    assert await tables.kinds(task_id) == ["lease_lost", "stale_result"]


async def test_the_hook_of_a_worker_that_was_cut_off_leaves_nothing_behind(
    worker, tables, client, witness, go_on, proxy
):
    task_id = await client.enqueue("doomed")
    async with worker(proxy.dsn) as first:
        await witness.until("hook", task_id)
        proxy.silence()
        go_on.touch()
        async with worker() as second:
            await tables.until_status(task_id, "failed")
            await proxy.restore()
            await tables.until_idle(workers=2)
    assert await tables.written(task_id) == ["mourned"]
    assert [one.pid for one in witness.said("hook", task_id)][:2] == [first.pid, second.pid]
    assert (await tables.kinds(task_id)).count("failed") == 1


async def test_a_process_that_wakes_after_its_lease_begins_no_handler_that_it_had_not_begun(
    worker, tables, client, connection, witness, go_on
):
    """Frozen in the middle of its loop: what it had claimed would begin before any timer of it."""
    async with worker() as frozen:
        await tables.until_idle()
        async with connection.transaction():  # one notice, one claim
            blocking = await client.enqueue("block")
            others = [await client.enqueue("quick") for _ in range(3)]
        await witness.until("start", blocking)
        await tables.until("SELECT count(*) = 4 FROM asynctaskd.tasks WHERE status = 'running'")
        frozen.tell(SIGSTOP)
        await frozen.until_stopped()
        go_on.touch()
        async with worker() as heir:
            for task_id in others:
                assert (await witness.until("ran", task_id)).pid == heir.pid
            frozen.tell(SIGCONT)
            await frozen.until_logged("lease.lost")
            await tables.until_idle(workers=2)
    assert {one.pid for task_id in others for one in witness.said("ran", task_id)} == {heir.pid}
