"""The task as a service or a program gets it: one JSON document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from asynctaskd.definitions.context import TaskContext
from asynctaskd.definitions.payload import write_payload
from asynctaskd.definitions.signature import Handler

MAX_RESULT = 1_048_576
"""The longest result that is read, in bytes (1 MiB)."""

Run = Callable[[Any, TaskContext], Awaitable[Any]]


def task_document(payload: object, context: TaskContext) -> bytes:
    """`id`, `name`, `attempt`, `deadline` and `payload`, as JSON."""
    return write_payload(
        {
            "id": context.task_id,
            "name": context.name,
            "attempt": context.attempt,
            "deadline": written_deadline(context.deadline),
            "payload": payload,
        }
    )


def written_deadline(deadline: datetime) -> str:
    """RFC 3339, in UTC."""
    return deadline.astimezone(UTC).isoformat().replace("+00:00", "Z")


def handing_on(run: Run, place: str, parameters: type[BaseModel] | None) -> Handler:
    """A handler whose work is `run`; its payload is any JSON object, or what the model says."""

    async def handler(payload: dict[str, Any], ctx: TaskContext) -> Any:
        return await run(payload, ctx)

    handler.__qualname__ = f"<{place}>"
    if parameters is not None:
        handler.__annotations__["payload"] = parameters
    return handler
