"""One execution of an InMemoryClient's task, and the context that its handler gets."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from typing_extensions import override

from asynctaskd.daemon.execute import outcome_of
from asynctaskd.definitions import rules
from asynctaskd.definitions.context import TaskContext
from asynctaskd.definitions.hooks import Proceed, wrapped
from asynctaskd.definitions.request import TaskRequest
from asynctaskd.durations import format_duration, parse_duration
from asynctaskd.errors import InvalidPayloadError
from asynctaskd.task import Completed, Failed, Outcome

if TYPE_CHECKING:
    import asyncpg

    from asynctaskd.definitions.registry import Registry
    from asynctaskd.testing.memory import InMemoryClient
    from asynctaskd.testing.record import Record


class Attempt(TaskContext):
    """One execution, as its handler sees it; `run` carries it out.

    Attributes:
        error: what the handler raised, or what was wrong with its result; None where there was nothing.
    """

    def __init__(self, client: InMemoryClient, record: Record, app: Registry) -> None:
        self._client = client
        self._record = record
        self._definition = app[record.name]
        self._middlewares = app.middlewares + self._definition.middlewares
        self._deadline = client.now + record.timeout
        self._result: Any = None
        self._limit: asyncio.Timeout | None = None
        self.error: BaseException | None = None

    async def run(self) -> Outcome:
        """Call the handler, under the task's timeout, in real time."""
        try:
            async with asyncio.timeout(self._record.timeout.total_seconds()) as self._limit:
                value = await self._value()
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            if _is_told_to_stop(error):
                raise
            self.error = error
            outcome = outcome_of(error)
        else:
            outcome = self._completed(value)
        return self._timed_out() if self.cancelled else outcome

    def _completed(self, value: object) -> Outcome:
        try:
            return Completed(self._definition.dump_result(self._result if value is None else value))
        except InvalidPayloadError as error:
            self.error = error
            return Failed(str(error), reason="invalid_result")

    def _timed_out(self) -> Outcome:
        """Whatever the handler made of its cancellation."""
        self.error = TimeoutError(f"timed out after {format_duration(self._record.timeout)}")
        return Failed(str(self.error), reason="timeout")

    async def _value(self) -> Any:
        bound = self._definition.bind(self._record.payload)
        return await wrapped(self._middlewares, bound, self, self._handler(bound))()

    def _handler(self, bound: object) -> Proceed:
        if self._definition.is_sync:
            return lambda: asyncio.to_thread(_called, self._definition.call, bound, self)
        return partial(self._definition.call, bound, self)

    @property
    @override
    def task_id(self) -> int:
        return self._record.id

    @property
    @override
    def name(self) -> str:
        return self._record.name

    @property
    @override
    def attempt(self) -> int:
        return self._record.attempts

    @property
    @override
    def deadline(self) -> datetime:
        return self._deadline

    @override
    def remaining(self) -> timedelta:
        return max(self._deadline - self._client.now, timedelta(0))

    @property
    @override
    def result(self) -> Any:
        return self._result

    @result.setter
    @override
    def result(self, value: Any) -> None:
        self._result = value

    @property
    @override
    def log(self) -> Any:
        return structlog.get_logger("asynctaskd.task").bind(
            task_id=self.task_id, task=self.name, attempt=self.attempt
        )

    @property
    @override
    def cancelled(self) -> bool:
        return self._limit is not None and self._limit.expired()

    @override
    async def enqueue(self, task: Any, payload: object = None, **options: Any) -> int:
        if not isinstance(task, TaskRequest) or task.options.parent_id is None:
            options.setdefault("parent_id", self.task_id)
        return await self._client.enqueue(task, payload, **options)

    @override
    async def dependency_results(self) -> dict[int, Any]:
        wanted = self._record.options.depends_on or ()
        return {task_id: (await self._client.get_task(task_id)).result for task_id in wanted}

    @override
    def transaction(self) -> AbstractAsyncContextManager[asyncpg.Connection[asyncpg.Record]]:
        raise NotImplementedError(
            "an InMemoryClient has no database, so no ctx.transaction(): test this handler with "
            "asynctaskd_worker, or call it with a context of your own"
        )

    @override
    async def progress(self, percent: float, message: str = "") -> None:
        self._record.progress = {
            "percent": rules.percent("percent", percent),
            "message": rules.string("message", message),
        }

    @override
    async def extend(self, duration: str | timedelta) -> None:
        more = parse_duration(duration)
        self._deadline += more
        until = self._limit and self._limit.when()
        if self._limit is not None and until is not None:
            self._limit.reschedule(until + more.total_seconds())


def _is_told_to_stop(error: BaseException) -> bool:
    """Whether it is the test that is cancelled, and no handler that raised a CancelledError of its own."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _called(call: Any, *arguments: Any) -> Any:
    """Call; a future can't hold a StopIteration, and whoever waits for it would wait for ever."""
    try:
        return call(*arguments)
    except StopIteration as error:
        raise RuntimeError("the handler raised StopIteration") from error
