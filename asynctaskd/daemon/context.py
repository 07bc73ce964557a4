"""What a handler sees of its own execution."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import structlog
from typing_extensions import override

from asynctaskd.definitions import rules
from asynctaskd.definitions.context import TaskContext
from asynctaskd.definitions.request import TaskRequest
from asynctaskd.definitions.text import truncate_text
from asynctaskd.durations import parse_duration
from asynctaskd.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from datetime import datetime, timedelta

    import asyncpg

    from asynctaskd.client import Client
    from asynctaskd.daemon.execution import Execution
    from asynctaskd.daemon.transactions import Transactions


_LONGEST_MESSAGE = 1024  # bytes


class ExecutionContext(TaskContext):
    """The TaskContext of one execution."""

    __slots__ = ("_client", "_connection", "_execution", "_log", "_loop", "_result", "_transactions")

    def __init__(self, execution: Execution, transactions: Transactions, client: Client) -> None:
        self._execution = execution
        self._transactions = transactions
        self._client = client
        self._connection: asyncpg.Connection | None = None  # while a transaction() is open
        self._result: Any = None
        self._log: Any = None
        self._loop = asyncio.get_running_loop()

    @property
    @override
    def task_id(self) -> int:
        return self._execution.task.id

    @property
    @override
    def name(self) -> str:
        return self._execution.task.name

    @property
    @override
    def attempt(self) -> int:
        return self._execution.task.attempts

    @property
    @override
    def deadline(self) -> datetime:
        return self._execution.deadline

    @override
    def remaining(self) -> timedelta:
        left = self._execution.deadline - self._execution.now()
        return max(left, left * 0)

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
        if self._log is None:
            self._log = structlog.get_logger("asynctaskd.task").bind(**self._execution.facts)
        return self._log

    @property
    @override
    def cancelled(self) -> bool:
        return self._execution.interruption is not None

    @override
    async def enqueue(self, task: Any, payload: object = None, **options: Any) -> int:
        self._require_workers_loop("enqueue")
        if not _makes_a_schedule(task, options):
            options.setdefault("parent_id", self.task_id)
        options.setdefault("connection", self._connection)
        return await self._client.enqueue(task, payload, **options)

    @override
    async def dependency_results(self) -> dict[int, Any]:
        self._require_workers_loop("dependency_results")
        own = await self._client.get_task(self.task_id)
        found = {task.id: task.result for task in await self._client.get_tasks(own.depends_on)}
        return {task_id: found[task_id] for task_id in own.depends_on if task_id in found}

    @override
    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[asyncpg.Connection]:
        self._require_workers_loop("transaction")
        async with self._transactions.completing(self._execution, lambda: self._result) as connection:
            self._connection = connection
            try:
                yield connection
            finally:
                self._connection = None

    @override
    async def progress(self, percent: float, message: str = "") -> None:
        self._require_workers_loop("progress")
        word = truncate_text(self._execution.discreet(rules.string("message", message)), _LONGEST_MESSAGE)
        text = json.dumps({"percent": rules.percent("percent", percent), "message": word})
        definition = self._execution.definition
        if definition is not None and definition.encoding is not None:
            text = definition.encoding.encoded(text, "progress")
        await self._transactions.note_progress(self._execution, text)

    @override
    async def extend(self, duration: str | timedelta) -> None:
        self._execution.extend(parse_duration(duration))

    def _require_workers_loop(self, what: str) -> None:
        """Refuse another event loop: the connections, and what guards them, are those of the worker's."""
        if asyncio.get_running_loop() is not self._loop:
            raise InvalidInputError(
                f"ctx.{what}() was called in another event loop than the worker's (asyncio.run in a thread?);"
                " await it in a handler that is `async def`"
            )


def _makes_a_schedule(task: Any, options: Mapping[str, Any]) -> bool:
    given = task.options.cron if isinstance(task, TaskRequest) else None
    return options.get("cron", given) is not None
