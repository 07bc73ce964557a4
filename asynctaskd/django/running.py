"""How a worker runs Django's tasks: the handlers, and what Django is told while they run."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import connections
from django.utils import timezone

from asynctaskd.codecs.codec import JsonCodec
from asynctaskd.definitions.context import TaskContext
from asynctaskd.django import api
from asynctaskd.django.calls import IN_THREAD, ON_LOOP, TaskCall, UnknownDjangoTaskError
from asynctaskd.django.fresh import fresh_connections
from asynctaskd.django.results import DjangoTaskError, amend, error_of
from asynctaskd.task import TaskFailure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asynctaskd.definitions.declarations import Declarations


@dataclass(frozen=True, slots=True, kw_only=True)
class DjangoTaskContext(api.TaskContext):
    """The context of a Django task that takes one.

    Attributes:
        execution: asynctaskd's own: `cancelled`, `remaining()`, `progress(…)` and so on.
    """

    execution: TaskContext


def declare_on(app: Declarations) -> None:
    """Have an App run Django's tasks. Whatever its codec, they are stored as JSON, which Django reads."""
    for name, handler in ((IN_THREAD, run_in_thread), (ON_LOOP, run_on_loop)):
        if name not in app.definitions:
            app.task(name, codec=JsonCodec())(handler).on_failed(tell_failed)


def run_in_thread(call: TaskCall, ctx: TaskContext) -> Any:
    """Run a Django task whose function isn't async; what it returns is the result."""
    running = _begin(call, ctx)
    with _described():
        value = running.task.func(*_arguments(running, ctx), **running.kwargs)
    _end(running, value)
    return value


async def run_on_loop(call: TaskCall, ctx: TaskContext) -> Any:
    """Run a Django task whose function is async."""
    # As a request has: a thread for all of Django's that isn't async, and its connections with it.
    async with ThreadSensitiveContext():
        try:
            running = await sync_to_async(_begin)(call, ctx)
            with _described():
                value = await running.task.func(*_arguments(running, ctx), **running.kwargs)
            await sync_to_async(_end)(running, value)
        finally:
            await sync_to_async(connections.close_all)()
    return value


async def tell_failed(call: TaskCall | None, failure: TaskFailure, _tx: Any) -> None:
    """Send Django's signal that a task has failed for good."""
    if call is not None:
        await asyncio.to_thread(_tell_failed, call, failure)


def _begin(call: TaskCall, ctx: TaskContext) -> Any:
    """The TaskResult of an execution, which Django is told of; raises UnknownDjangoTaskError."""
    backend = api.task_backends[call.backend]
    result = backend.get_result(str(ctx.task_id))
    # Whoever hears of it changes nothing about it, whatever they raise.
    api.task_started.send_robust(type(backend), task_result=result)
    return result


def _arguments(running: Any, ctx: TaskContext) -> list[Any]:
    if not running.task.takes_context:
        return list(running.args)
    return [DjangoTaskContext(task_result=running, execution=ctx), *running.args]


def _end(running: Any, value: object) -> None:
    amend(running, _return_value=value)
    _tell_finished(running, api.TaskResultStatus.SUCCESSFUL)


def _tell_failed(call: TaskCall, failure: TaskFailure) -> None:
    with fresh_connections():
        try:
            result = api.task_backends[call.backend].get_result(str(failure.task_id))
        except UnknownDjangoTaskError:
            return  # there is nothing to tell of
        amend(result, errors=[error_of(failure.error, failure.reason)])
        _tell_finished(result, api.TaskResultStatus.FAILED)


def _tell_finished(result: Any, status: Any) -> None:
    amend(result, status=status, finished_at=timezone.now())
    api.task_finished.send_robust(type(api.task_backends[result.backend]), task_result=result)


@contextmanager
def _described() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise DjangoTaskError(error, ours=2) from error
