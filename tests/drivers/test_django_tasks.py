"""Django's own tasks: enqueued by the backend, run by a worker, and what Django is told of them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, connections, transaction
from django.test import override_settings

from asynctaskd import App, Client, InvalidPayloadError
from asynctaskd.codecs.messagepack import MsgpackCodec
from asynctaskd.django import TasksBackend, api, enqueue
from asynctaskd.django.calls import IN_THREAD, ON_LOOP, UnknownDjangoTaskError, load_task
from asynctaskd.django.worker import app
from tests.support.shop import background, tasks
from tests.support.shop.tasks import CardRefusedError

Status = api.TaskResultStatus
SHOP = "tests.support.shop.tasks"
NOON = datetime(2031, 7, 1, 12, tzinfo=UTC)

if TYPE_CHECKING:
    WorkOff = Callable[..., Awaitable[None]]

pytestmark = pytest.mark.usefixtures("shop")


@pytest.fixture(autouse=True)
def no_attempts() -> None:
    tasks.attempts.clear()


@pytest.fixture
def run(work_off: WorkOff) -> Callable[..., None]:
    """Run a worker until nothing is due."""
    return lambda *how, **more: asyncio.run(work_off(app, *how, **more))


@pytest.fixture
def signals() -> Iterator[list[tuple[str, str, str]]]:
    """What Django's signals told: which, the task's name, and its status."""
    told: list[tuple[str, str, str]] = []

    def receiver(name: str) -> Callable[..., None]:
        def receive(sender: type, task_result: Any, **_: Any) -> None:
            assert sender is TasksBackend
            told.append((name, task_result.task.name, str(task_result.status)))

        return receive

    kept = {}
    for name in ("task_enqueued", "task_started", "task_finished"):
        kept[name] = receiver(name)
        getattr(api, name).connect(kept[name])
    yield told
    for name, receive in kept.items():
        getattr(api, name).disconnect(receive)


def column(name: str, result: Any) -> Any:
    """A column of the task's row."""
    return ask(f"SELECT {name} FROM asynctaskd.all_tasks WHERE id = {int(result.id)}")


def ask(statement: str) -> Any:
    """The one value that a statement answers."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
        [value] = cursor.fetchone()
    return value


def count() -> int:
    return int(ask("SELECT count(*) FROM asynctaskd.all_tasks"))


OTHER_SESSIONS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


def one_past_attempts(result: Any) -> None:
    """Let the next attempt be due."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE asynctaskd.tasks SET run_at = now() WHERE id = %s", [int(result.id)])


# Enqueue


def test_what_is_enqueued_is_ready_and_can_be_found_again() -> None:
    result = tasks.add.enqueue(1, b=2)
    assert (result.status, result.args, result.kwargs, result.backend) == (
        Status.READY,
        [1],
        {"b": 2},
        "default",
    )
    found = tasks.add.get_result(result.id)
    assert (found.id, found.status, found.task) == (result.id, Status.READY, tasks.add)
    assert (found.args, found.kwargs, found.errors, found.attempts) == ([1], {"b": 2}, [], 0)
    assert abs(found.enqueued_at - result.enqueued_at) < timedelta(minutes=1)
    assert (found.started_at, found.finished_at, found.last_attempted_at) == (None, None, None)


def test_it_shares_the_transaction_of_djangos_connection() -> None:
    with transaction.atomic():
        tasks.add.enqueue(1)
        transaction.set_rollback(True)
    assert count() == 0
    with transaction.atomic():
        tasks.add.enqueue(1)
    assert count() == 1


async def test_async_code_enqueues_and_asks() -> None:
    try:
        result = await tasks.add_on_the_loop.aenqueue(1, b=2)
        found = await tasks.add_on_the_loop.aget_result(result.id)
        await result.arefresh()
    finally:
        await sync_to_async(connections.close_all)()
    assert (found.status, result.status) == (Status.READY, Status.READY)


@pytest.mark.parametrize(
    "priority, lane",
    [(100, (100, 101)), (1, (1, 101)), (0, (0, 101)), (-1, (0, 100)), (-99, (0, 2)), (-100, (0, 1))],
)
def test_a_priority_above_0_is_strict_and_one_below_is_a_weight(priority: int, lane: tuple[int, int]) -> None:
    result = tasks.add.using(priority=priority).enqueue(1)
    assert (column("priority", result), column("weight", result)) == lane
    assert tasks.add.get_result(result.id).task.priority == priority


def test_tasks_run_in_the_order_of_their_priorities(run: Callable[..., None]) -> None:
    for priority in (-100, 0, 50, -1, 100):
        tasks.order.using(priority=priority).enqueue(str(priority))
    run(concurrency=1)
    with connection.cursor() as cursor:
        cursor.execute("SELECT note FROM orders ORDER BY id")
        assert [note for [note] in cursor.fetchall()] == ["100", "50", "0", "-1", "-100"]


def test_a_queue_is_a_label_save_for_the_default_one() -> None:
    assert column("labels", tasks.mail.enqueue("ada")) == ["mail"]
    assert column("labels", tasks.add.enqueue(1)) == []
    assert tasks.mail.get_result(tasks.mail.enqueue("ada").id).task.queue_name == "mail"


def test_a_queue_that_the_settings_do_not_have_is_refused() -> None:
    with pytest.raises(api.InvalidTask, match="Queue 'post' is not valid"):
        tasks.add.using(queue_name="post")


def test_a_queue_that_can_be_no_label_is_refused() -> None:
    backends = {"default": {"BACKEND": "asynctaskd.django.TasksBackend", "QUEUES": []}}
    with override_settings(TASKS=backends):
        assert tasks.add.using(queue_name="any").queue_name == "any"
        with pytest.raises(api.InvalidTask, match="can't be a label"):
            tasks.add.using(queue_name="no label")


def test_run_after_is_the_time_before_which_it_does_not_run(run: Callable[..., None]) -> None:
    in_vienna = NOON.astimezone(ZoneInfo("Europe/Vienna"))
    result = tasks.add.using(run_after=in_vienna).enqueue(1)
    assert column("run_at", result) == NOON
    run()
    found = tasks.add.get_result(result.id)
    assert (found.status, found.task.run_after) == (Status.READY, NOON)


def test_without_time_zones_times_are_naive_and_in_the_projects_zone() -> None:
    with override_settings(USE_TZ=False):
        result = tasks.add.using(run_after=datetime(2031, 7, 1, 14)).enqueue(1)  # noqa: DTZ001
        found = tasks.add.get_result(result.id)
    assert found.task.run_after == datetime(2031, 7, 1, 14)  # noqa: DTZ001
    assert found.enqueued_at.tzinfo is None
    assert column("run_at", result) == NOON


def test_the_options_of_a_backend_are_those_of_its_tasks() -> None:
    result = tasks.never.enqueue()
    assert column("tags", result) == ["patient"]
    assert column("timeout", result) == timedelta(minutes=1)
    assert tasks.never.get_result(result.id).backend == "patient"


@pytest.mark.parametrize(
    "options, problem",
    [
        ({"retries": 3}, "has no option 'retries'; it has database, deadline, keep, retry, tags, timeout"),
        ({"unique_tag": "t"}, "has no option 'unique_tag'"),
        ({"timeout": "soon"}, "timeout: .*'soon'"),
    ],
)
def test_an_option_that_will_not_do_is_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=problem):
        TasksBackend("default", {"OPTIONS": options})


def test_arguments_that_json_does_not_have_are_refused_and_nothing_is_written() -> None:
    with pytest.raises(TypeError):
        tasks.echo.enqueue(NOON)
    with pytest.raises(InvalidPayloadError, match="64 bits"):
        tasks.echo.enqueue(2**70)
    assert count() == 0


def test_what_a_worker_would_not_find_is_refused() -> None:
    with pytest.raises(api.InvalidTask, match=r"no Django task 'tests\.support\.shop\.tasks\.plain'"):
        tasks._hidden.enqueue()
    assert count() == 0


def test_a_task_whose_place_another_one_has_taken_is_refused() -> None:
    def add(a: int) -> int:
        return -a

    add.__module__, add.__qualname__ = SHOP, "add"
    with pytest.raises(api.InvalidTask, match="would run another task"):
        api.Task(func=add).enqueue(1)


def test_another_database_of_the_project_may_hold_the_tasks() -> None:
    connections.settings["second"] = connections.settings["default"]
    backend = TasksBackend("elsewhere", {"OPTIONS": {"database": "second"}})
    try:
        with transaction.atomic(using="second"):
            backend.enqueue(tasks.add, [1], {})
            assert count() == 0
        assert count() == 1
    finally:
        connections["second"].close()
        del connections["second"], connections.settings["second"]


# Run


@pytest.mark.parametrize("task", [tasks.add, tasks.add_on_the_loop], ids=["in a thread", "on the loop"])
def test_a_worker_runs_it_and_its_value_is_the_result(task: Any, run: Callable[..., None]) -> None:
    result = task.enqueue(1, b=2)
    run()
    result.refresh()
    assert (result.status, result.return_value, result.errors, result.attempts) == (
        Status.SUCCESSFUL,
        3,
        [],
        1,
    )
    assert result.worker_ids == [str(column("worker_id", result))]
    assert result.enqueued_at <= result.finished_at
    assert result.started_at == result.last_attempted_at <= result.finished_at
    assert result.finished_at.tzinfo is not None


def test_arguments_arrive_as_they_were(run: Callable[..., None]) -> None:
    arguments = [1, 2.5, "100% :p1 ✓", None, [True, {"a": [2**62]}]]
    result = tasks.echo.enqueue(*arguments, key={"%s": "$1"})
    run()
    assert tasks.echo.get_result(result.id).return_value == [arguments, {"key": {"%s": "$1"}}]


@pytest.mark.parametrize(
    "order",
    [tasks.order.enqueue, tasks.order_on_the_loop.enqueue, lambda note: enqueue("remember", {"text": note})],
    ids=["in a thread", "on the loop", "of the App"],
)
def test_it_uses_djangos_connections_and_leaves_none_open(
    order: Callable[[str], Any], run: Callable[..., None]
) -> None:
    for note in "abc":
        order(note)
    run()
    assert ask("SELECT count(*) FROM orders") == 3
    until = time.monotonic() + 20  # the server takes a moment to see that one is gone
    while others := ask(OTHER_SESSIONS):
        assert time.monotonic() < until, f"{others} connections were left open"


def test_a_connection_that_broke_is_not_the_next_ones_trouble(run: Callable[..., None]) -> None:
    broken = tasks.break_connection.using(priority=1).enqueue()
    sound = tasks.order.enqueue("a book")
    run(concurrency=1)
    assert tasks.break_connection.get_result(broken.id).status == Status.FAILED
    assert tasks.order.get_result(sound.id).status == Status.SUCCESSFUL


@pytest.mark.parametrize("task", [tasks.pay, tasks.pay_on_the_loop], ids=["in a thread", "on the loop"])
def test_an_exception_is_told_with_its_class_and_traceback(task: Any, run: Callable[..., None]) -> None:
    result = task.enqueue(7)
    run()
    result.refresh()
    [error] = result.errors
    assert (result.status, error.exception_class) == (Status.FAILED, CardRefusedError)
    assert error.traceback.startswith("Traceback (most recent call last):\n")
    assert "in pay" in error.traceback
    assert "asynctaskd/django" not in error.traceback
    assert f"{SHOP}.CardRefusedError: no funds for 7" in error.traceback
    with pytest.raises(ValueError, match="Task failed"):
        _ = result.return_value
    told = column("last_error", result).splitlines()[0]
    assert told == f"DjangoTaskError: {SHOP}.CardRefusedError: no funds for 7"


def test_a_value_that_can_not_be_written_is_a_failure(run: Callable[..., None]) -> None:
    result = tasks.unwritable.enqueue()
    run()
    result.refresh()
    assert (result.status, result.errors[0].exception_class.__name__) == (Status.FAILED, "TaskFailedError")


def test_a_timeout_is_a_failure(run: Callable[..., None]) -> None:
    result = tasks.dawdle.enqueue()
    run()
    result.refresh()
    assert (result.status, result.errors[0].exception_class) == (Status.FAILED, TimeoutError)
    assert result.errors[0].traceback == "timed out after 1ms"


def test_a_failure_is_retried_as_the_options_of_the_backend_say(run: Callable[..., None]) -> None:
    result = tasks.third_time.enqueue()
    while len(tasks.attempts) < 3:
        one_past_attempts(result)
        run()
    result.refresh()
    assert (result.status, result.return_value, result.attempts) == (Status.SUCCESSFUL, "at last", 3)
    assert result.worker_ids[:2] == ["unknown", "unknown"]
    assert result.errors[0].exception_class is CardRefusedError


def test_between_two_attempts_it_is_ready(run: Callable[..., None]) -> None:
    result = tasks.never.enqueue()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE asynctaskd.tasks SET retry = '1h'")
    run()
    result.refresh()
    assert (result.status, result.attempts, result.worker_ids) == (Status.READY, 1, ["unknown"])
    assert result.errors[0].exception_class is CardRefusedError


def test_what_asynctaskd_takes_for_an_instruction_is_one_here_too(run: Callable[..., None]) -> None:
    hopeless, snoozed = tasks.give_up.enqueue(), tasks.later.enqueue()
    run()
    hopeless.refresh()
    snoozed.refresh()
    assert (hopeless.status, hopeless.attempts) == (Status.FAILED, 1)
    assert column("reason", hopeless) == "terminated"
    assert (snoozed.status, snoozed.attempts) == (Status.READY, 0)


def test_the_context_is_djangos_and_has_asynctaskds(run: Callable[..., None]) -> None:
    result = tasks.told.enqueue(extra=1)
    run()
    assert tasks.told.get_result(result.id).return_value == {
        "attempt": 1,
        "id": result.id,
        "status": "RUNNING",
        "args": [],
        "extra": 1,
        "execution": int(result.id),
        "cancelled": False,
    }


def test_the_context_of_an_async_task_reports_progress(run: Callable[..., None]) -> None:
    result = tasks.told_on_the_loop.enqueue()
    run()
    assert tasks.told_on_the_loop.get_result(result.id).return_value == [1, int(result.id)]
    assert json.loads(column("progress::text", result)) == {"percent": 50, "message": "half"}


def test_only_a_worker_with_its_label_takes_a_task_from_a_queue(run: Callable[..., None]) -> None:
    result = tasks.mail.enqueue("ada")
    run()
    assert tasks.mail.get_result(result.id).status == Status.READY
    run("mail")
    assert tasks.mail.get_result(result.id).status == Status.SUCCESSFUL


def test_the_worker_runs_the_projects_own_app_too(run: Callable[..., None]) -> None:
    task_id = enqueue(background.add, {"a": 1, "b": 2})
    run()
    assert ask(f"SELECT status FROM asynctaskd.all_tasks WHERE id = {task_id}") == "completed"


def test_sql_enqueues_django_tasks_too(run: Callable[..., None]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT asynctaskd.enqueue(%s, %s::jsonb)",
            [IN_THREAD, json.dumps({"task": f"{SHOP}.add", "args": [1], "kwargs": {"b": 5}})],
        )
        [task_id] = cursor.fetchone()
    run()
    assert tasks.add.get_result(str(task_id)).return_value == 6


# What may be called


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "antigravity.fly_to",
        f"{SHOP}.plain",
        f"{SHOP}.insert",
        f"{SHOP}.gone",
        "tests.support.shop.nowhere.task",
        "add",
        "",
    ],
)
def test_nothing_is_called_that_is_no_task(path: str, run: Callable[..., None]) -> None:
    with connection.cursor() as cursor:
        for name in (IN_THREAD, ON_LOOP):
            cursor.execute("SELECT asynctaskd.enqueue(%s, %s::jsonb)", [name, json.dumps({"task": path})])
    run()
    with connection.cursor() as cursor:
        cursor.execute("SELECT status, last_error FROM asynctaskd.all_tasks")
        rows = cursor.fetchall()
    assert {(status, error.partition(":")[0]) for status, error in rows} == {
        ("failed", "UnknownDjangoTaskError")
    }


def test_no_module_outside_the_projects_apps_is_imported() -> None:
    import sys

    assert "antigravity" not in sys.modules
    with pytest.raises(UnknownDjangoTaskError, match="in none of INSTALLED_APPS"):
        load_task("antigravity.fly_to")
    assert "antigravity" not in sys.modules


# Results


@pytest.mark.parametrize("result_id", ["404", "x", "", "-1", "9" * 40, "1.5"])
def test_a_result_that_is_not_there_is_told(result_id: str) -> None:
    with pytest.raises(api.TaskResultDoesNotExist):
        api.task_backends["default"].get_result(result_id)


def test_a_task_that_is_not_djangos_has_no_result_of_djangos() -> None:
    task_id = enqueue("note")
    with pytest.raises(api.TaskResultDoesNotExist):
        api.task_backends["default"].get_result(str(task_id))


def test_a_cancelled_task_and_an_expired_one_have_failed(dsn_of_shop: str) -> None:
    cancelled, expired = tasks.add.enqueue(1), tasks.add.enqueue(2)

    async def end() -> None:
        async with Client(dsn_of_shop) as client:
            await client.cancel(int(cancelled.id))
            await client.expire(int(expired.id))

    asyncio.run(end())
    for result, kind in ((cancelled, "TaskCancelledError"), (expired, "TaskExpiredError")):
        result.refresh()
        assert (result.status, result.errors[0].exception_class.__name__) == (Status.FAILED, kind)


# Signals


def test_signals_tell_of_a_task_that_succeeds(
    signals: list[tuple[str, str, str]], run: Callable[..., None]
) -> None:
    tasks.add.enqueue(1)
    run()
    assert signals == [
        ("task_enqueued", "add", "READY"),
        ("task_started", "add", "RUNNING"),
        ("task_finished", "add", "SUCCESSFUL"),
    ]


def test_signals_tell_of_a_failure_once_and_when_it_is_final(
    signals: list[tuple[str, str, str]], run: Callable[..., None]
) -> None:
    result = tasks.never.enqueue()
    while tasks.never.get_result(result.id).status != Status.FAILED:
        one_past_attempts(result)
        run()
    finished = [told for told in signals if told[0] == "task_finished"]
    assert finished == [("task_finished", "never", "FAILED")]
    assert len([told for told in signals if told[0] == "task_started"]) == len(tasks.attempts) == 10


def test_signals_tell_of_a_timeout(signals: list[tuple[str, str, str]], run: Callable[..., None]) -> None:
    tasks.dawdle.enqueue()
    run()
    assert signals[-1] == ("task_finished", "dawdle", "FAILED")


def test_who_hears_that_a_task_has_finished_can_not_undo_it(run: Callable[..., None]) -> None:
    def refuse(**_: Any) -> None:
        raise RuntimeError("not now")

    api.task_finished.connect(refuse)
    try:
        succeeded, failed = tasks.add.enqueue(1), tasks.pay.enqueue(1)
        run()
    finally:
        api.task_finished.disconnect(refuse)
    assert tasks.add.get_result(succeeded.id).status == Status.SUCCESSFUL
    assert tasks.pay.get_result(failed.id).status == Status.FAILED
    assert ask("SELECT count(*) FROM asynctaskd.task_events WHERE kind = 'hook_failed'") == 0


def test_an_app_has_djangos_tasks_only_once_and_as_json_whatever_else_it_has() -> None:
    from asynctaskd.django.running import declare_on

    own = App(codec=MsgpackCodec())

    @own.route("")
    async def everything(payload: dict[str, Any]) -> None: ...

    declare_on(own)
    declare_on(own)
    assert sorted(own.definitions) == ["*", *sorted([IN_THREAD, ON_LOOP])]
    assert [own[name].encoding for name in (IN_THREAD, ON_LOOP)] == [None, None]
