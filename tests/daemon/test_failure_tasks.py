"""Tasks that are enqueued by name when another has failed for good."""

from __future__ import annotations

import sys

import pytest
from pydantic import BaseModel, Field

from asynctaskd import InvalidDefinitionError, TaskContext
from asynctaskd.definitions.loader import load_app
from asynctaskd.errors import ConfigError, TaskFailedError
from asynctaskd.postgres.store import Store


@pytest.fixture
async def store(database):
    opened = await Store.open(database.dsn, schema=database.schema)
    yield opened
    await opened.close()


def broken(app, name: str = "ship", **options):
    @app.task(name, **options)
    async def handler(payload: dict) -> None:
        raise ValueError("no stock")

    return handler


@pytest.fixture
def told(app):
    """Which failures the task `tell` was enqueued for."""
    ids = []

    @app.task("tell")
    async def tell(task_id: int) -> None:
        ids.append(task_id)

    return ids


async def test_a_failure_enqueues_its_failure_task_once_with_the_id(app, told, running, client, tables):
    broken(app, on_failed="tell", retry="0s")
    async with running(app):
        task_id = await client.enqueue("ship", {"order": 1})
        await tables.until("SELECT count(*) = 1 FROM asynctaskd.finished_tasks WHERE name = 'tell'")
    assert told == [task_id]
    assert await tables.value("SELECT count(*) FROM asynctaskd.all_tasks") == 2


class Tell(BaseModel):
    failed: int = Field(alias="taskID")
    channel: str = "ops"


async def test_other_parameters_come_from_their_defaults(app, running, client, tables):
    seen = []
    broken(app, on_failed="tell")

    @app.task("tell")
    async def tell(params: Tell, ctx: TaskContext) -> None:
        seen.append(params)

    async with running(app):
        task_id = await client.enqueue("ship")
        await tables.until("SELECT count(*) = 1 FROM asynctaskd.finished_tasks WHERE name = 'tell'")
    assert seen == [Tell(taskID=task_id)]
    assert await tables.value("SELECT payload FROM asynctaskd.all_tasks WHERE name = 'tell'") == (
        f'{{"taskID": {task_id}}}'
    )


async def test_a_failure_task_has_a_retry_policy_of_its_own(app, running, client, tables):
    broken(app, on_failed="tell")
    attempts = []

    @app.task("tell", retry="0s,0s")
    async def tell(taskID: int, ctx: TaskContext) -> None:  # noqa: N803  (as the sources spell it)
        attempts.append(ctx.attempt)
        if len(attempts) < 3:
            raise ValueError("the line is busy")

    async with running(app):
        await client.enqueue("ship")
        await tables.until("SELECT status = 'completed' FROM asynctaskd.all_tasks WHERE name = 'tell'")
    assert attempts == [1, 2, 3]


async def test_a_failure_tasks_own_failure_starts_no_other(app, running, client, tables):
    broken(app, "ping", on_failed="pong")
    broken(app, "pong", on_failed="ping")
    async with running(app):
        await client.enqueue("ping")
        await tables.until("SELECT status = 'failed' FROM asynctaskd.finished_tasks WHERE name = 'pong'")
        await client.enqueue("pong")  # by hand it has its failure task like any other
        await tables.until("SELECT count(*) = 2 FROM asynctaskd.finished_tasks WHERE name = 'ping'")
    assert await tables.value("SELECT count(*) FROM asynctaskd.all_tasks") == 4


async def test_a_failure_task_that_an_operator_retries_starts_none_either(app, running, client, tables):
    broken(app, "ping", on_failed="pong")
    broken(app, "pong", on_failed="ping")
    async with running(app):
        failed = await client.enqueue("ping")
        await tables.until("SELECT status = 'failed' FROM asynctaskd.finished_tasks WHERE name = 'pong'")
        [pong] = await client.list_tasks(name="pong")
        assert pong.metadata == {"failure_of": failed}
        await tables.execute("SELECT asynctaskd.keep_failed(100)")  # it has ended
        await client.retry(pong.id)
        with pytest.raises(TaskFailedError):
            await client.wait(pong.id)
    assert await tables.value("SELECT count(*) FROM asynctaskd.all_tasks") == 2


async def test_a_definition_has_a_hook_or_a_failure_task(app):
    handler = broken(app, on_failed="tell")

    async def hook(params, failure, tx) -> None: ...

    with pytest.raises(InvalidDefinitionError, match="has a failure hook already"):
        handler.on_failed(hook)


async def test_a_hook_of_the_app_sees_both_in_one_transaction(app, told, running, client, tables):
    seen = []
    broken(app, on_failed="tell")

    @app.on_failed
    async def look(failure, tx) -> None:
        seen.append(await tx.fetch("SELECT name, status FROM asynctaskd.all_tasks ORDER BY id"))

    async with running(app):
        await client.enqueue("ship")
        await tables.until("SELECT count(*) = 1 FROM asynctaskd.finished_tasks WHERE name = 'tell'")
    assert [tuple(row) for row in seen[0]] == [("ship", "failed"), ("tell", "pending")]


async def test_a_task_that_fails_at_rest_has_its_failure_task(app, told, running, client, tables):
    broken(app, on_failed="tell", delay="1h")
    async with running(app):
        task_id = await client.enqueue("ship")
        await client.fail(task_id, "not needed")
        await tables.until("SELECT count(*) = 1 FROM asynctaskd.finished_tasks WHERE name = 'tell'")
    assert told == [task_id]


@pytest.mark.parametrize("keep", ["0s", "1d"])
async def test_the_failure_task_can_read_the_failed_one_whatever_its_keep(app, running, client, tables, keep):
    broken(app, on_failed="tell", keep=keep)
    read = []

    @app.task("tell")
    async def tell(task_id: int) -> None:
        read.append(await client.get_task(task_id))

    async with running(app):
        await client.enqueue("ship", {"order": 1})
        await tables.until("SELECT count(*) = 1 FROM asynctaskd.finished_tasks WHERE name = 'tell'")
    [failed] = read
    assert (failed.payload, failed.status, failed.last_error) == (
        {"order": 1},
        "failed",
        "ValueError: no stock",
    )


async def test_a_record_is_kept_while_its_failure_task_lives(app, running, client, tables, store):
    broken(app, on_failed="tell", keep="1d")

    @app.task("tell", delay="1h")
    async def tell(task_id: int) -> None: ...

    async with running(app):
        task_id = await client.enqueue("ship")
        await tables.until_status(task_id, "failed")
    due = "UPDATE asynctaskd.finished_tasks SET forget_on = (asynctaskd.clock() AT TIME ZONE 'UTC')::date"
    days = "SELECT forget_on - (asynctaskd.clock() AT TIME ZONE 'UTC')::date FROM asynctaskd.finished_tasks"
    await tables.execute(
        "SELECT asynctaskd.ensure_finished_partition((asynctaskd.clock() AT TIME ZONE 'UTC')::date)"
    )
    await tables.execute(due)
    assert await store.keep_failed() == 1
    assert await tables.value(days) == 2

    await client.cancel(await tables.value("SELECT id FROM asynctaskd.tasks WHERE name = 'tell'"))
    await tables.execute(due)
    assert await store.keep_failed() == 0
    assert await tables.value("SELECT count(*) FROM asynctaskd.failure_tasks") == 0


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        (None, "no task is named 'tell'"),
        ("task_id: int, reason: str", "reason: Field required"),
        ("order: int", "taskID: Extra inputs are not permitted"),
    ],
)
def test_a_failure_task_that_cant_be_enqueued_is_refused_at_the_start(
    app, tmp_path, monkeypatch, parameters, why
):
    declared = "" if parameters is None else f"@app.task('tell')\nasync def tell({parameters}) -> None: ...\n"
    (tmp_path / "shop_that_fails.py").write_text(
        "from asynctaskd import App\napp = App()\n"
        "@app.task('ship', on_failed='tell')\nasync def ship() -> None: ...\n" + declared
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"task 'ship': on_failed='tell': .*{why}"):
        load_app("shop_that_fails:app")
    del sys.modules["shop_that_fails"]
