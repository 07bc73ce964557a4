"""What an App's HTTP tasks share: the list of hosts, and the connections of its workers.

httpx is an extra, so what needs it is imported by the first declaration that does.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from pydantic import SecretStr

from asynctaskd.definitions.remote.hosts import checked_hosts, is_listed
from asynctaskd.errors import InvalidDefinitionError, InvalidInputError

if TYPE_CHECKING:
    from asynctaskd.definitions.remote.connections import Connections
    from asynctaskd.definitions.remote.http import Endpoint, Secret


class Services:
    """The services that tasks of one App are posted to."""

    def __init__(self, hosts: Iterable[str] | None) -> None:
        self._hosts = checked_hosts(hosts)
        self._connections: dict[str | ssl.SSLContext | None, Connections] = {}

    def endpoint(
        self,
        task: str,
        url: str,
        *,
        secret: Secret | None,
        hosts: Iterable[str] | None,
        verify: str | ssl.SSLContext | None,
    ) -> Endpoint:
        """Where the tasks of a definition are posted.

        Raises:
            InvalidDefinitionError: URL, host, secret or certificates won't do, or httpx isn't installed.
        """
        try:
            from asynctaskd.definitions.remote.http import Endpoint  # noqa: PLC0415  (it comes with the extra)
        except ModuleNotFoundError as error:
            raise InvalidDefinitionError(
                f"task {task!r} is posted over HTTP, which takes an extra: pip install 'asynctaskd[http]'"
            ) from error

        try:
            allowed = self._hosts if hosts is None else checked_hosts(hosts)
        except InvalidInputError as error:
            raise InvalidDefinitionError(f"task {task!r}: {error}") from None
        listed = is_listed(task, url, allowed)
        _check_secret(task, secret)
        return Endpoint(url, self._trusting(task, verify), secret, listed)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Keep the connections of this event loop open until the end of the block."""
        async with AsyncExitStack() as stack:
            for connections in self._connections.values():
                await stack.enter_async_context(connections.open())
            yield

    def _trusting(self, task: str, verify: str | ssl.SSLContext | None) -> Connections:
        from asynctaskd.definitions.remote.connections import Connections  # noqa: PLC0415

        if verify not in self._connections:
            self._connections[verify] = Connections(_trust(task, verify))
        return self._connections[verify]


def _trust(task: str, verify: object) -> ssl.SSLContext:
    if isinstance(verify, ssl.SSLContext):
        return verify
    if verify is not None and not isinstance(verify, str):
        raise InvalidDefinitionError(
            f"task {task!r}: verify must be a file of certificates or an SSLContext, got {verify!r}; "
            "there is no way not to verify"
        )
    import certifi  # noqa: PLC0415  (it comes with httpx)

    try:
        return ssl.create_default_context(cafile=verify or certifi.where())
    except OSError as error:  # also what OpenSSL can't read
        raise InvalidDefinitionError(f"task {task!r}: can't read certificates {verify!r}: {error}") from None


def _check_secret(task: str, secret: object) -> None:
    if secret is not None and not isinstance(secret, SecretStr) and not callable(secret):
        raise InvalidDefinitionError(
            f"task {task!r}: secret must be a pydantic.SecretStr, or a function that returns one, "
            f"got {type(secret).__name__}"
        )
    if isinstance(secret, SecretStr) and not secret.get_secret_value():
        raise InvalidDefinitionError(f"task {task!r}: its secret is empty")
