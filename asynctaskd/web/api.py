"""Tasks over HTTP: an ASGI application to mount in one of yours, for programs that don't speak SQL.

Nothing serves it unless an application mounts it, and nobody is let in without the token.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from asynctaskd.control.plain import plain
from asynctaskd.definitions import rules
from asynctaskd.definitions.payload import MAX_BYTES
from asynctaskd.definitions.request import TaskRequest
from asynctaskd.errors import (
    DatabaseUnavailableError,
    InvalidInputError,
    InvalidStateError,
    TaskAlreadyExistsError,
    TaskNotFoundError,
    UnknownTaskError,
)
from asynctaskd.scheduling.retry import RetryPolicy

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from asynctaskd.client import Client
    from asynctaskd.task import Task

CONTROL_TASK = "updateWorkerRuntimeConfig"

ACTIONS = ("pause", "resume", "cancel", "retry", "expire", "run_now")
"""What may be asked of a task, each as `POST /ID/action`."""

_PROBLEM = "application/problem+json"
_SHORTEST_TOKEN = 16
# Beside the payload itself.
_MOST_OPTIONS = 65_536

_STATUSES: Mapping[type[Exception], int] = {
    TaskNotFoundError: 404,
    TaskAlreadyExistsError: 409,
    InvalidStateError: 409,
    UnknownTaskError: 422,
    InvalidInputError: 422,
    DatabaseUnavailableError: 503,
}

Endpoint = Callable[[Request], Awaitable[Response]]


def tasks_api(client: Client, *, token: str, actions: Collection[str] = ()) -> Starlette:
    """An application that enqueues and shows tasks; mount it below any path.

    `POST /` enqueues `{"name": …, "payload": …}` and any option of an enqueue by its name, instants in
    ISO 8601, beside `retry` also `max_attempts`; it answers with 201 and `{"id": n}`. With the header
    `Idempotency-Key` a second one changes nothing and answers with the first id. `GET /` lists (`name`,
    `status`, `limit`), `GET /ID` shows one task, `GET /ID/events` what happened to it. `POST /ID/cancel` and
    so on answer with a receipt. Errors are problem documents (RFC 9457).

    Args:
        token: what requests have to bring, as `Authorization: Bearer …`; at least 16 characters.
        actions: which of `pause`, `resume`, `cancel`, `retry`, `expire` and `run_now` may be asked for; none,
            unless they are named.

    Raises:
        InvalidInputError: the token is too short, or there is no such action.
    """
    if len(token) < _SHORTEST_TOKEN:
        raise InvalidInputError(f"token must have at least {_SHORTEST_TOKEN} characters, got {len(token)}")
    for action in actions:
        rules.one_of("action", action, ACTIONS)
    pages = _Pages(client)
    allowed = [
        Route(f"/{{task_id:int}}/{action}", pages.command(action), methods=["POST"]) for action in actions
    ]
    return Starlette(
        routes=[
            Route("/", pages.enqueue, methods=["POST"]),
            Route("/", pages.list_tasks),
            Route("/{task_id:int}", pages.show),
            Route("/{task_id:int}/events", pages.events),
            *allowed,
        ],
        middleware=[Middleware(_Guard, token=token)],
        exception_handlers={HTTPException: _refused} | dict.fromkeys(_STATUSES, _problem),
    )


class _Guard:
    """Lets nobody in without the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._wanted = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_let_in(scope):
            refusal = _document(401, "a bearer token is needed", {"WWW-Authenticate": "Bearer"})
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_let_in(self, scope: Scope) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given, self._wanted)


class _Pages:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def enqueue(self, request: Request) -> Response:
        asked = _object(await _body(request))
        if (key := request.headers.get("idempotency-key")) is not None:
            asked["idempotence_token"] = key
        task_id = await self._client.enqueue(_request(asked))
        return _json({"id": task_id}, 201, {"Location": str(request.url_for("show", task_id=task_id))})

    async def list_tasks(self, request: Request) -> Response:
        given = request.query_params
        limit = rules.integer("limit", _number("limit", given.get("limit", "100")), 1, 1000)
        tasks = await self._client.list_tasks(name=given.get("name"), status=given.get("status"), limit=limit)
        return _json(await self._shown(tasks))

    async def show(self, request: Request) -> Response:
        task = await self._client.get_task(_id(request))
        [shown] = await self._shown([task])
        return _json(shown)

    async def events(self, request: Request) -> Response:
        task = await self._client.get_task(_id(request))
        return _json(await self._client.events(task.id))

    def command(self, action: str) -> Endpoint:
        ask = getattr(self._client, action)

        async def endpoint(request: Request) -> Response:
            task = await self._client.get_task(_id(request))
            receipt = await ask(task.id)
            return _json(asdict(receipt))

        return endpoint

    async def _shown(self, tasks: list[Task]) -> list[dict[str, Any]]:
        return [asdict(task) for task in await self._client.hide_secrets(tasks)]


def _id(request: Request) -> int:
    return rules.task_id("a task's id", request.path_params["task_id"])


async def _body(request: Request) -> str:
    """The body, as far as it may be one; what is too long isn't read to its end."""
    parts, size = list[bytes](), 0
    async for part in request.stream():
        parts.append(part)
        size += len(part)
        if size > MAX_BYTES + _MOST_OPTIONS:
            raise HTTPException(413, f"the body is longer than {MAX_BYTES + _MOST_OPTIONS} bytes")
    try:
        return b"".join(parts).decode()
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"the body isn't UTF-8 text (byte {error.start})") from None


def _object(text: str) -> dict[str, Any]:
    try:
        asked = json.loads(text)  # what its parts may hold is checked with them
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"the body is not valid JSON: {error}") from None
    if not isinstance(asked, dict):
        raise InvalidInputError("the body must be an object: name, payload and options")
    return cast("dict[str, Any]", asked)


def _request(asked: dict[str, Any]) -> TaskRequest:
    if asked.get("name") == CONTROL_TASK or asked.get("cron") is not None:
        raise HTTPException(403, "the runtime configuration and schedules can't be changed here")
    name, payload, most = (asked.pop(key, None) for key in ("name", "payload", "max_attempts"))
    options = {option: _value(option, value) for option, value in asked.items()}
    if most is not None:
        options["retry"] = RetryPolicy(rules.text("retry", options.get("retry")), max_attempts=most)
    return TaskRequest(name, payload, **cast("Any", options))


def _value(option: str, value: object) -> object:
    """What an option takes: JSON has no instants."""
    if option not in ("run_at", "deadline") or not isinstance(value, str):
        return value
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return value  # a duration, or what the rules then say of it


def _number(name: str, text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text


def _json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    text = json.dumps(content, default=plain, ensure_ascii=False)
    return Response(text, status, headers, media_type="application/json")


def _document(status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    text = json.dumps({"status": status, "detail": detail} | more)
    return Response(text, status, headers, media_type=_PROBLEM)


async def _refused(_: Request, error: Exception) -> Response:
    refusal = cast("HTTPException", error)
    return _document(refusal.status_code, refusal.detail, refusal.headers)


async def _problem(_: Request, error: Exception) -> Response:
    status = next(status for kind, status in _STATUSES.items() if isinstance(error, kind))
    headers = {"Retry-After": "1"} if status == 503 else None
    known = {"task_id": error.task_id} if isinstance(error, TaskAlreadyExistsError) else {}
    return _document(status, str(error), headers, **known)
