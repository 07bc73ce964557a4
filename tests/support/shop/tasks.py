"""Django's tasks of the project."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connection

from asynctaskd import FatalTaskError, SnoozeTask
from asynctaskd.django.configuration import tasks_module

task: Any = import_module(str(tasks_module())).task

attempts: list[int] = []
"""Of `third_time`, `never` and `never_on_the_loop`."""


class CardRefusedError(Exception):
    pass


@task
def add(a: int, b: int = 0) -> int:
    return a + b


@task()
async def add_on_the_loop(a: int, b: int = 0) -> int:
    await asyncio.sleep(0)
    return a + b


@task(queue_name="mail", priority=7)
def mail(to: str) -> str:
    return to


@task
def echo(*args: Any, **kwargs: Any) -> list[Any]:
    return [list(args), kwargs]


def insert(note: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO orders (note) VALUES (%s)", [note])
    return note


@task
def order(note: str) -> str:
    return insert(note)


@task
async def order_on_the_loop(note: str) -> str:
    return await sync_to_async(insert)(note)


@task
def pay(amount: int) -> None:
    raise CardRefusedError(f"no funds for {amount}\nnot even for half of it")


@task
async def pay_on_the_loop(amount: int) -> None:
    raise CardRefusedError(f"no funds for {amount}")


@task(backend="patient")
def third_time() -> str:
    attempts.append(1)
    if len(attempts) < 3:
        raise CardRefusedError("not yet")
    return "at last"


@task(backend="patient")
def never() -> None:
    attempts.append(1)
    raise CardRefusedError("never")


@task(backend="patient")
def give_up() -> None:
    try:
        raise CardRefusedError("no")
    except CardRefusedError as error:
        raise FatalTaskError("it is of no use") from error


@task
def later() -> None:
    raise SnoozeTask("1h")


@task(backend="hasty")
async def dawdle() -> None:
    await asyncio.sleep(3600)


@task
def unwritable() -> object:
    return object()


@task(takes_context=True)
def told(context: Any, extra: int) -> dict[str, Any]:
    result = context.task_result
    return {
        "attempt": context.attempt,
        "id": result.id,
        "status": str(result.status),
        "args": result.args,
        "extra": extra,
        "execution": context.execution.task_id,
        "cancelled": context.execution.cancelled,
    }


@task(takes_context=True)
async def told_on_the_loop(context: Any) -> list[Any]:
    await context.execution.progress(50, "half")
    return [context.attempt, int(context.task_result.id)]


@task
def break_connection() -> None:
    connection.ensure_connection()
    connection.connection.close()
    insert("lost")


def plain() -> None:
    """No task."""


_hidden = task(plain)
