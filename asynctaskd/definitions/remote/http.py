"""Post a task to a service, and take its reply for what the task comes to."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import httpx
from pydantic import SecretStr

from asynctaskd.definitions.context import TaskContext
from asynctaskd.definitions.remote.connections import Connections
from asynctaskd.definitions.remote.document import task_document, written_deadline
from asynctaskd.definitions.remote.hosts import is_public
from asynctaskd.definitions.remote.reply import result_of
from asynctaskd.definitions.remote.signature import sign
from asynctaskd.errors import RemoteTaskError

Secret = SecretStr | Callable[[], SecretStr | str]


@dataclass(frozen=True)
class Endpoint:
    """Where tasks of one definition are posted.

    Attributes:
        url: the whole of it.
        connections: what they are posted over.
        secret: what they are signed with, asked for each time where it is a function; None: unsigned.
        listed: whether the host is listed by name, so that its address may be a private one.
    """

    url: str
    connections: Connections
    secret: Secret | None
    listed: bool

    @property
    def place(self) -> str:
        """Where that is, in words: without a query, which may hold secrets."""
        return f"POST {self.url.partition('?')[0]}"

    async def run(self, payload: object, context: TaskContext) -> Any:
        """Post the task; returns the result.

        Raises: what a handler may raise, as the reply says; RemoteTaskError where there is none.
        """
        body = task_document(payload, context)
        async with self.connections.open() as client:
            request = client.build_request(
                "POST",
                self.url,
                content=body,
                headers=self._headers(body, context),
                extensions={} if self.listed else {"trace": _refuse_private},
            )
            try:
                response = await client.send(request, stream=True)
                async with aclosing(response):
                    return await result_of(response)
            except httpx.HTTPError as error:
                raise RemoteTaskError(f"POST to {request.url.host}: {_said(error)}") from error

    def _headers(self, body: bytes, context: TaskContext) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "Asynctaskd-Deadline": written_deadline(context.deadline),
            "Asynctaskd-Remaining": f"{context.remaining().total_seconds():.3f}",
        }
        if self.secret is not None:
            secret = self.secret() if callable(self.secret) else self.secret
            headers["Asynctaskd-Signature"] = sign(secret, body, int(time.time()))
        return headers


def _said(error: httpx.HTTPError) -> str:
    """Many of these have no message: then their names say it."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


async def _refuse_private(event: str, info: Mapping[str, Any]) -> None:
    """Close a connection to where a public name shouldn't lead, before anything is sent over it."""
    if event == "connection.connect_tcp.complete":
        stream = info["return_value"]
        address = stream.get_extra_info("server_addr")[0]
        if not is_public(address):
            await stream.aclose()
            raise RemoteTaskError(
                f"its host resolves to {address}, which isn't public: list it in App(http_hosts=[…])"
            )
