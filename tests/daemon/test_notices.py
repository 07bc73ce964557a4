from __future__ import annotations

import pytest

SELDOM = "1h"
"""A poll interval no test lives through: only a notice can be the reason that a task is found."""


@pytest.fixture(autouse=True)
def _handlers(app):
    @app.task("quick")
    async def quick() -> None: ...


@pytest.mark.parametrize("options", [{}, {"priority": 5}, {"labels": ["a"]}, {"serial_key": "k"}], ids=repr)
async def test_an_idle_worker_finds_a_task_by_its_notice(
    app, running, client, wait, tables, recorder, options
):
    async with running(app, poll_interval=SELDOM, labels=["a"]) as daemon:
        await recorder.wait_for("listener.up")
        for _ in range(3):
            await tables.until_idle(daemon)
            await wait(await client.enqueue("quick", **options))


async def test_tasks_of_a_transaction_are_found_when_it_commits(
    app, running, client, wait, tables, recorder, connection
):
    async with running(app, poll_interval=SELDOM) as daemon:
        await recorder.wait_for("listener.up")
        await tables.until_idle(daemon)
        async with connection.transaction():
            ids = [await client.enqueue("quick", connection=connection) for _ in range(3)]
        for task_id in ids:
            await wait(task_id)


async def test_a_task_enqueued_by_sql_wakes_like_any_other(app, running, wait, tables, recorder):
    async with running(app, poll_interval=SELDOM) as daemon:
        await recorder.wait_for("listener.up")
        await tables.until_idle(daemon)
        await wait(await tables.value("SELECT asynctaskd.enqueue('quick')"))
        await tables.until_idle(daemon)
        for task_id in await tables.value(
            "SELECT asynctaskd.enqueue_many(ARRAY['quick', 'quick'], ARRAY['{}', '{}']::jsonb[])"
        ):
            await wait(task_id)


async def test_notices_are_heard_again_after_the_listening_connection_was_ended(
    app, running, client, wait, tables, recorder
):
    async with running(app, poll_interval=SELDOM) as daemon:
        await recorder.wait_for("listener.up")
        assert await tables.terminate("query ~ 'pg_notify|LISTEN'") == 1
        await recorder.wait_for("listener.up", times=2)
        await tables.until_idle(daemon)
        await wait(await client.enqueue("quick"))


async def test_a_task_enqueued_while_nobody_listened_is_found_when_listening_begins_again(
    app, running, client, wait, tables, recorder
):
    async with running(app, poll_interval=SELDOM) as daemon:
        await recorder.wait_for("listener.up")
        await tables.until_idle(daemon)
        assert await tables.terminate("query ~ 'pg_notify|LISTEN'") == 1
        await wait(await client.enqueue("quick"))


async def test_without_listening_the_poll_finds_tasks(app, running, client, wait, recorder):
    async with running(app, poll_interval="20ms", listen="off"):
        await wait(await client.enqueue("quick"))
        await wait(await client.enqueue("quick", priority=3))
    assert recorder.all("listener.up") == []


async def test_a_worker_that_does_not_listen_asks_nobody_to_speak(app, running, client, wait, tables):
    @app.task("one")
    async def one() -> None: ...

    async with running(app, poll_interval="20ms", listen="off"):
        for _ in range(3):
            await wait(await client.enqueue("one"))
        assert await tables.value("SELECT idle FROM asynctaskd.workers") is False


async def test_a_serial_line_moves_on_without_a_poll(app, running, client, wait, tables, recorder):
    async with running(app, poll_interval=SELDOM) as daemon:
        await recorder.wait_for("listener.up")
        await tables.until_idle(daemon)
        ids = [await client.enqueue("quick", serial_key="k") for _ in range(10)]
        for task_id in ids:
            await wait(task_id)


async def test_unreadable_notices_end_nothing(app, running, client, wait, tables, recorder):
    async with running(app, poll_interval=SELDOM) as daemon:
        await recorder.wait_for("listener.up")
        await tables.until_idle(daemon)
        for payload in ("", "nobody,knows", '{"op": 1}', "x" * 7000, "\u00e4"):
            await tables.execute("SELECT pg_notify('asynctaskd_ready', $1)", payload)
        await tables.until_idle(daemon)
        await wait(await client.enqueue("quick"))
