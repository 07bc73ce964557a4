"""Tasks of a tasks.yaml, from the file to the row of a finished task."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import pytest

from asynctaskd import App, Client, FatalTaskError, TaskContext, TaskFailedError, TaskStatus
from asynctaskd.definitions.codegen.module import write_module
from asynctaskd.definitions.spec.tasks import load_spec

if TYPE_CHECKING:
    from asyncpg import Connection

    from tests.daemon.conftest import Running, Tables

TASKS = """
tasks:
  - name: SendEmail
    events: [onFailed]
    retryPolicy: {interval: 0s, maxAttempts: 2}
    parameters:
      required: [userId]
      properties:
        userId: {type: integer, format: int32}
        sentAt: {type: string, format: date-time}
        urgency: {enum: [low, high], default: low}
  - name: email:ping
    events: [onFailed]
  - name: deleteOpaqueKey
    events: {onFailed: onDeleteOpaqueKeyFailed}
    parameters:
      required: [keyID]
      properties: {keyID: {type: integer, format: int64}}
  - name: onDeleteOpaqueKeyFailed
    parameters:
      required: [taskID]
      properties:
        taskID: {type: integer, format: int64}
        since: {type: string, format: date, default: 2026-01-31}
  - name: ProcessDailyReports
    cronjob: {cronExpression: "@every 1s"}
    parameters:
      required: [date]
      properties: {date: {type: string, format: date}}
"""


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The module of TASKS, imported from its file."""
    path = tmp_path_factory.mktemp("generated") / "tasks.yaml"
    path.write_text(TASKS)
    module_path = path.with_name("mail_gen.py")
    module_path.write_text(write_module(load_spec(path)))
    spec = importlib.util.spec_from_file_location("mail_gen", module_path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["mail_gen"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["mail_gen"]


class Told:
    """What an executor was called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    async def execute_send_email(self, params: Any, ctx: TaskContext) -> dict[str, Any]:
        self.calls.append(("execute", params, ctx.attempt))
        if params.user_id < 0:
            raise ValueError("no such user")
        return {"sent_to": params.user_id}

    async def on_send_email_failed(self, task_id: int, params: Any, tx: Connection) -> None:
        self.calls.append(("failed", task_id, params))
        await tx.execute("INSERT INTO refusals VALUES ($1)", task_id)

    async def execute_email_ping(self, ctx: TaskContext) -> None:
        raise FatalTaskError("no answer")

    async def on_email_ping_failed(self, task_id: int, tx: Connection) -> None:
        self.calls.append(("unanswered", task_id))

    async def execute_delete_opaque_key(self, params: Any, ctx: TaskContext) -> None:
        raise FatalTaskError("it is locked")

    async def execute_on_delete_opaque_key_failed(self, params: Any, ctx: TaskContext) -> None:
        self.calls.append(("told", params.task_id, params.since))

    async def execute_process_daily_reports(self, params: Any, ctx: TaskContext) -> None:
        self.calls.append(("report", params.date))


@pytest.fixture
def told(generated: Any, app: App) -> Told:
    """An executor that is registered on the App."""
    executor = Told()
    generated.register(app, executor)
    app.check()
    return executor


@pytest.fixture
def runner(generated: Any, client: Client) -> Any:
    return generated.TaskRunner(client)


async def test_a_task_of_a_file_runs_with_typed_parameters(
    generated: Any, told: Told, runner: Any, app: App, running: Running, client: Client, tables: Tables
):
    moment = datetime(2026, 1, 31, 12, tzinfo=UTC)
    task_id = await runner.run_send_email(
        generated.SendEmailParams(user_id=7, sent_at=moment), priority=5, tags=["first"]
    )
    waiting = await tables.task(task_id)
    assert json.loads(waiting["payload"]) == {
        "userId": 7,
        "sentAt": "2026-01-31T12:00:00Z",
        "urgency": "low",
    }
    assert (waiting["priority"], waiting["tags"]) == (5, ["first"])

    async with running(app):
        task = await client.wait(task_id, timeout="20s")
    assert task.result == {"sent_to": 7}
    assert told.calls == [("execute", generated.SendEmailParams(user_id=7, sent_at=moment), 1)]


async def test_what_is_enqueued_in_a_transaction_is_gone_with_it(
    generated: Any, told: Told, runner: Any, tables: Tables, pool: Any
):
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await runner.run_email_ping(connection=connection)
        await transaction.rollback()
    assert await tables.value("SELECT count(*) FROM asynctaskd.all_tasks") == 0


async def test_the_hook_of_a_task_gets_id_and_typed_parameters_in_the_transaction(
    generated: Any, told: Told, runner: Any, app: App, running: Running, client: Client, tables: Tables
):
    await tables.execute("CREATE TABLE refusals (id bigint)")
    params = generated.SendEmailParams(user_id=-1, urgency="high")
    task_id = await runner.run_send_email(params)
    async with running(app):
        with pytest.raises(TaskFailedError, match="no such user"):
            await client.wait(task_id, timeout="20s")
    assert told.calls == [("execute", params, 1), ("execute", params, 2), ("failed", task_id, params)]
    assert await tables.column("SELECT id FROM refusals") == [task_id]


async def test_the_hook_gets_none_for_a_payload_that_could_not_be_read(
    told: Told, app: App, running: Running, client: Client, tables: Tables
):
    await tables.execute("CREATE TABLE refusals (id bigint)")
    task_id = await client.enqueue("SendEmail", {"userId": 2**31})
    async with running(app):
        with pytest.raises(TaskFailedError, match="userId"):
            await client.wait(task_id, timeout="20s")
    assert told.calls == [("failed", task_id, None)]


async def test_the_hook_of_a_task_without_parameters_gets_its_id(
    told: Told, runner: Any, app: App, running: Running, client: Client
):
    task_id = await runner.run_email_ping()
    async with running(app):
        with pytest.raises(TaskFailedError, match="no answer"):
            await client.wait(task_id, timeout="20s")
    assert told.calls == [("unanswered", task_id)]


async def test_a_failure_task_gets_the_id_and_its_defaults(
    generated: Any, told: Told, runner: Any, app: App, running: Running, tables: Tables
):
    task_id = await runner.run_delete_opaque_key(generated.DeleteOpaqueKeyParams(key_id=2**40))
    async with running(app):
        await tables.until(
            "SELECT true FROM asynctaskd.all_tasks"
            " WHERE name = 'onDeleteOpaqueKeyFailed' AND status = 'completed'"
        )
    assert told.calls == [("told", task_id, date(2026, 1, 31))]
    assert (await tables.task(task_id))["status"] == TaskStatus.FAILED


async def test_a_schedule_of_a_file_runs_with_the_date_of_its_slot(
    told: Told, app: App, running: Running, tables: Tables
):
    async with running(app):
        await tables.until(
            "SELECT true FROM asynctaskd.all_tasks"
            " WHERE name = 'ProcessDailyReports' AND status = 'completed'"
        )
    assert told.calls[0] in {("report", day) for day in days_of_this_test()}


def days_of_this_test() -> set[date]:
    """Today, and yesterday in case the test began before midnight."""
    today = datetime.now(UTC).date()
    return {today, date.fromordinal(today.toordinal() - 1)}
