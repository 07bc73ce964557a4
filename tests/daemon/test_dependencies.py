"""A task that depends on others runs once all of them have completed, and never where one didn't."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from asynctaskd import App, FatalTaskError, TaskCancelledError, TaskContext, TaskRequest
from asynctaskd.errors import DatabaseUnavailableError, InvalidInputError
from asynctaskd.postgres.statements import Statements
from asynctaskd.postgres.store import Store


@pytest.fixture
def order(app: App) -> list[str]:
    """What has run, in order; a task named `bad` fails."""
    came: list[str] = []

    @app.task("act")
    async def act(who: str) -> str:
        came.append(who)
        if who == "bad":
            raise FatalTaskError("no")
        return who.upper()

    return came


async def act(client, who: str, **options) -> int:
    return await client.enqueue("act", {"who": who}, **options)


async def test_a_task_waits_for_all_it_depends_on(client, tables, order, app, running, wait):
    a, b = await act(client, "a"), await act(client, "b", delay="200ms")
    c = await act(client, "c", depends_on=[a, b, a])
    assert (await tables.task(c))["status"] == "waiting"
    assert (await tables.task(c))["depends_on"] == [a, b]
    async with running(app):
        await wait(c)
    assert sorted(order[:2]) == ["a", "b"]
    assert order[2:] == ["c"]
    assert await tables.value("SELECT count(*) FROM asynctaskd.dependencies") == 0


async def test_a_chain_goes_on_without_waiting_for_the_poll(client, order, app, running, wait, tables):
    may_end = asyncio.Event()

    @app.task("first")
    async def first(payload: dict) -> None:
        await may_end.wait()

    async with running(app, poll_interval="20s") as daemon:
        await tables.until_idle(daemon)
        last = await client.enqueue("first")
        for n in range(20):
            last = await act(client, str(n), depends_on=[last])
        may_end.set()
        async with asyncio.timeout(10):
            await wait(last)
    assert order == [str(n) for n in range(20)]


async def test_the_results_are_there_for_the_handler(client, app, order, running, wait):
    @app.task("gather")
    async def gather(payload: dict, ctx: TaskContext) -> list[str]:
        return list((await ctx.dependency_results()).values())

    async with running(app):
        ids = [await act(client, who) for who in "cab"]
        task = await wait(await client.enqueue("gather", depends_on=ids))
    assert task.result == ["C", "A", "B"]


async def test_what_has_completed_already_is_not_waited_for(client, app, order, running, wait, tables):
    async with running(app):
        a = await act(client, "a")
        await wait(a)
        b = await act(client, "b", depends_on=[a])
        await wait(b)
    assert order == ["a", "b"]


async def test_a_failed_dependency_cancels_all_that_wait_for_it(client, app, order, running, wait, tables):
    bad = await act(client, "bad")
    second = await act(client, "second", depends_on=[bad])
    third = await act(client, "third", depends_on=[second])
    async with running(app):
        with pytest.raises(TaskCancelledError, match=f"dependency {second} cancelled"):
            await wait(third)
        with pytest.raises(TaskCancelledError, match=f"dependency {bad} failed"):
            await wait(second)
        late = await act(client, "late", depends_on=[bad])
        with pytest.raises(TaskCancelledError, match=f"dependency {bad} failed"):
            await wait(late)
    assert order == ["bad"]
    assert await tables.value("SELECT count(*) FROM asynctaskd.dependencies") == 0


async def test_a_dependency_that_expires_cancels_too(client, app, order, running, wait):
    expiring = await act(client, "late", delay="1h", deadline="1ms")
    waiting = await act(client, "waiting", depends_on=[expiring])
    async with running(app):
        with pytest.raises(TaskCancelledError, match=f"dependency {expiring} expired"):
            await wait(waiting)


async def test_a_dependency_without_a_record_has_completed_unless_an_event_says_otherwise(
    client, app, order, running, wait
):
    good = await act(client, "good", keep=0)
    bad = await act(client, "bad", keep=0)
    after_good = await act(client, "after good", depends_on=[good])
    after_bad = await act(client, "after bad", depends_on=[bad])
    async with running(app):
        await wait(after_good)
        with pytest.raises(TaskCancelledError):
            await wait(after_bad)


async def test_what_was_missed_is_found_by_the_poll(client, app, order, running, wait, tables):
    """Its dependency ended before the row could be seen."""
    async with running(app, poll_interval="50ms"):
        a = await act(client, "a", delay="10s")
        async with tables.transaction() as connection:
            b = await client.enqueue("act", {"who": "b"}, depends_on=[a], connection=connection)
            await tables.execute("UPDATE asynctaskd.tasks SET run_at = now() WHERE id = $1", a)
            await wait(a)
        await wait(b)
    assert order == ["a", "b"]


async def test_two_dependencies_that_end_at_once_let_it_go(client, app, order, running, wait):
    async with running(app, concurrency=50, poll_interval="20s"), running(app, poll_interval="30ms"):
        for _ in range(20):
            pair = await client.enqueue_many([TaskRequest("act", {"who": "x"}, delay="20ms")] * 2)
            async with asyncio.timeout(10):
                await wait(await act(client, "after", depends_on=pair))


@pytest.mark.parametrize("wrong", [[0], [-1], ["1"], "12", 7, [None], [1.5]])
async def test_malformed_dependencies_are_refused(client, wrong):
    with pytest.raises(InvalidInputError, match="depends_on"):
        await client.enqueue("act", {"who": "a"}, depends_on=wrong)


async def test_an_unknown_dependency_is_refused(client, tables):
    with pytest.raises(InvalidInputError, match="depends_on 99 is not a task"):
        await client.enqueue("act", {"who": "a"}, depends_on=[99])
    with pytest.raises(InvalidInputError, match="request 1: depends_on 99 is not a task"):
        await client.enqueue_many([TaskRequest("act", {"who": "a"}, depends_on=[99])])
    assert await tables.value("SELECT count(*) FROM asynctaskd.tasks") == 0


async def test_many_can_be_enqueued_with_dependencies(client, app, order, running, wait):
    a = await act(client, "a")
    b, c = await client.enqueue_many(
        [TaskRequest("act", {"who": "b"}, depends_on=[a]), TaskRequest("act", {"who": "c"})]
    )
    async with running(app):
        await wait(b)
        await wait(c)
    assert order.index("a") < order.index("b")


async def test_a_key_mate_that_depends_on_something_is_not_in_the_way(client, app, order, running, wait):
    slow = await act(client, "slow", delay="1h")
    dependent = await act(client, "dependent", serial_key="k", depends_on=[slow])
    mate = await act(client, "mate", serial_key="k")
    async with running(app):
        await wait(mate)
        await client.run_now(slow)
        await wait(dependent)
    assert order == ["mate", "slow", "dependent"]


async def test_a_task_may_depend_on_a_later_one_of_its_own_key(client, app, order, running, wait):
    mate = await act(client, "mate", serial_key="k", serial_id=9)
    first = await act(client, "first", serial_key="k", serial_id=1, depends_on=[mate])
    async with running(app):
        await wait(first)
    assert order == ["mate", "first"]


async def test_once_runs_a_chain_to_its_end_and_does_not_wait_for_what_is_later(
    client, app, order, daemon_of
):
    last = await act(client, "0")
    for n in range(1, 5):
        last = await act(client, str(n), depends_on=[last], serial_key="k")
    later = await act(client, "later", delay="1h")
    await act(client, "never", depends_on=[later], serial_key="k")
    async with asyncio.timeout(20):
        await daemon_of(app).run(once=True)
    assert order == ["0", "1", "2", "3", "4"]


async def test_a_task_that_is_scheduled_too_waits_for_its_time_after_its_dependency(
    client, app, order, running, wait, tables
):
    a = await act(client, "a")
    b = await act(client, "b", depends_on=[a], delay="1h")
    async with running(app):
        await wait(a)
        await tables.until_status(b, "scheduled")


async def test_a_dependency_can_be_named_in_sql(client, tables, app, order, running, wait):
    a = await act(client, "a")
    b = await tables.value(
        """SELECT asynctaskd.enqueue('act', '{"who": "b"}', depends_on => ARRAY[$1::bigint])""", a
    )
    async with running(app):
        await wait(b)
    assert order == ["a", "b"]


async def many(tables, awaited: int, count: int) -> None:
    """So many tasks that wait for that one."""
    await tables.execute(
        """WITH waiting AS (
            INSERT INTO asynctaskd.tasks (id, created_at, priority, weight, status, name, label_set, tags,
                                          depends_on, payload)
            SELECT nextval('asynctaskd.task_ids'), now(), 0, 1, 'waiting', 'act', '', '{}', ARRAY[$1::bigint],
                   '{"who": "x"}' FROM generate_series(1, $2::integer)
            RETURNING id)
        INSERT INTO asynctaskd.dependencies (depends_on, task_id) SELECT $1, id FROM waiting""",
        awaited,
        count,
    )


@pytest.fixture
async def store(database) -> AsyncIterator[Store]:
    store = await Store.open(database.dsn, schema="asynctaskd")
    yield store
    await store.close()


async def unsettled(tables) -> int:
    return await tables.value("SELECT count(*) FROM asynctaskd.dependencies")


@pytest.mark.parametrize("how", ["failed", "completed"])
async def test_a_statement_sees_to_a_thousand_dependants_and_says_for_whom_others_wait(
    client, order, store, tables, how
):
    head, small = await act(client, "head"), await act(client, "small")
    await many(tables, head, 2500)
    await many(tables, small, 1)
    await end_unseen(tables, how, head, small)
    settled, left = await store.settle_dependencies([head, small])
    assert settled <= 1000
    assert left == [small, head]
    assert (await store.settle_dependencies([small]))[1] == []
    while left := (await store.settle_dependencies([head]))[1]:
        assert left == [head]
    assert await unsettled(tables) == 0


async def end_slowly(tables) -> None:
    """Let the end of each task take as long as that of one with a large payload."""
    await tables.execute(
        """CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN PERFORM pg_sleep(0.05); RETURN OLD; END $$;
           CREATE TRIGGER slowly BEFORE DELETE ON asynctaskd.tasks FOR EACH ROW EXECUTE FUNCTION slowly()"""
    )


async def test_a_statement_cancels_fewer_dependants_where_each_takes_long(client, order, store, tables):
    head = await act(client, "head")
    await many(tables, head, 200)
    await end_unseen(tables, "failed", head)
    await end_slowly(tables)
    settled, left = await store.settle_dependencies([head])
    assert settled < 200
    assert left == [head]


async def test_a_statement_expires_fewer_tasks_where_each_takes_long(client, store, tables):
    await client.enqueue_many([TaskRequest("act", {}, deadline="1ms", delay="1h")] * 200)
    await tables.until("SELECT bool_and(deadline < clock_timestamp()) FROM asynctaskd.tasks")
    await end_slowly(tables)
    assert await store.expire()
    assert 0 < await tables.value("SELECT count(*) FROM asynctaskd.tasks") < 200


async def end_unseen(tables, how: str, *ids: int) -> None:
    """End tasks as if the worker had died before it saw to those who wait for them."""
    if how == "completed":
        await tables.execute("DELETE FROM asynctaskd.tasks WHERE id = ANY ($1)", ids)
    else:
        reasons = ["error"] * len(ids)
        await tables.execute("SELECT asynctaskd.finish_each($1, $2, 'failed', 'no')", list(ids), reasons)


async def test_a_statement_goes_a_hundred_links_down_a_chain(client, order, store, tables):
    links = [await act(client, "head")]
    for _ in range(250):
        links.append(await act(client, "link", depends_on=links[-1:]))
    await end_unseen(tables, "failed", links[0])
    left, statements = links[:1], 0
    while left:
        settled, left = await store.settle_dependencies(left)
        statements += 1
        assert settled <= 100
    assert statements >= 3
    assert await unsettled(tables) == 0


async def test_who_is_locked_does_not_keep_the_others_from_being_seen_to(client, order, store, tables):
    head = await act(client, "head")
    await many(tables, head, 1100)
    await end_unseen(tables, "failed", head)
    async with tables.transaction() as connection:
        await connection.fetch(
            "SELECT FROM asynctaskd.tasks WHERE status = 'waiting' ORDER BY id LIMIT 1080 FOR UPDATE"
        )
        assert await store.settle_dependencies([head]) == (20, [head])
        assert await store.settle_dependencies([head]) == (0, [head])


@pytest.mark.parametrize("who", ["bad", "good"])
async def test_what_a_finalizer_leaves_is_seen_to_at_once_and_not_at_the_next_poll(
    client, app, order, running, wait, tables, who
):
    async with running(app, poll_interval="60s", concurrency=1) as daemon:
        await tables.until_idle(daemon)
        head = await act(client, who, delay="1h")
        await many(tables, head, 3500)
        daemon._housekeeper.note_dependants()
        await client.run_now(head)
        await tables.until("SELECT NOT EXISTS (SELECT FROM asynctaskd.dependencies)")


async def test_lost_workers_are_looked_for_between_two_batches_of_dependants(
    client, app, order, running, tables, monkeypatch
):
    head = await act(client, "head")
    await many(tables, head, 5000)
    await end_unseen(tables, "failed", head)
    fetch, came = Statements._fetch, []

    async def noted(self, name, *arguments):
        came.append(name)
        return await fetch(self, name, *arguments)

    monkeypatch.setattr(Statements, "_fetch", noted)
    async with running(app, poll_interval="1ms"):
        await tables.until("SELECT NOT EXISTS (SELECT FROM asynctaskd.dependencies)")
    batches = [n for n, name in enumerate(came) if name == "settle_dependencies"]
    assert "recover" in came[batches[0] : batches[-1]]


async def test_housekeeping_goes_on_where_dependants_can_not_be_seen_to(
    client, app, order, running, tables, monkeypatch, calls
):
    async def too_slow(*_):
        raise DatabaseUnavailableError("canceling statement due to statement timeout")

    head = await act(client, "head")
    await many(tables, head, 1)
    await end_unseen(tables, "failed", head)
    monkeypatch.setattr(Store, "settle_dependencies", too_slow)
    async with running(app, poll_interval="10ms"):
        await calls.until("settle", 2)  # the last ones of a round
        await calls.until("forget_commands", 1)


async def test_once_sees_to_all_dependants(client, app, order, daemon_of, tables):
    head = await act(client, "head")
    await many(tables, head, 2500)
    await end_unseen(tables, "failed", head)
    async with asyncio.timeout(20):
        await daemon_of(app).run(once=True)
    assert await unsettled(tables) == 0


async def test_a_command_cancels_the_tree_at_once_and_leaves_many_dependants_to_the_poll(
    client, app, order, running, tables
):
    head = await act(client, "head", delay="1h")
    await many(tables, head, 2500)
    await client.cancel(head)
    assert (await tables.task(head))["status"] == "cancelled"
    assert await unsettled(tables) >= 1500
    async with running(app):
        await tables.until("SELECT NOT EXISTS (SELECT FROM asynctaskd.dependencies)")
    assert await tables.value("SELECT count(*) FROM asynctaskd.tasks") == 0


async def test_a_record_that_dependants_have_yet_to_follow_is_not_purged(client, order, store, tables):
    """Else they would take it for completed, and run."""
    head = await act(client, "head", delay="1h")
    await many(tables, head, 1001)
    await client.cancel(head)
    assert await purge(tables, head) == "tasks that depend on it are still to follow its end"
    while (await store.settle_dependencies([head]))[1]:
        continue
    assert await purge(tables, head) is None
    assert await tables.value("SELECT count(*) FROM asynctaskd.all_tasks WHERE id = $1", head) == 0


async def purge(tables, task_id: int) -> str | None:
    """Why it was refused."""
    request = await tables.value(f"""SELECT asynctaskd.command('purge', '{{"ids": [{task_id}]}}')""")
    return await tables.value("SELECT reason FROM asynctaskd.receipts WHERE request_id = $1", request)
