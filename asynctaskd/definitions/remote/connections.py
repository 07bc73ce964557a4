"""HTTP connections that all who post at a time share."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from asynctaskd.version import __version__

# In seconds, for the connection and for its TLS handshake; all else may take what the task's timeout leaves.
_CONNECT_LIMIT = 10.0


@dataclass
class _Shared:
    """The client of one event loop, and how many use it now."""

    client: httpx.AsyncClient
    users: int = 0


class Connections:
    """A pool for each event loop, opened by whoever comes first and closed by whoever leaves last.

    A worker stays in it as long as it runs. Without one, each call opens a pool and closes it.
    """

    def __init__(self, trust: ssl.SSLContext) -> None:
        self._trust = trust
        self._shared: dict[asyncio.AbstractEventLoop, _Shared] = {}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[httpx.AsyncClient]:
        """The client of this loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._shared:
            self._shared[loop] = _Shared(self._made())
        shared = self._shared[loop]
        shared.users += 1
        try:
            yield shared.client
        finally:
            shared.users -= 1
            if not shared.users:
                del self._shared[loop]
                await shared.client.aclose()

    def _made(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            verify=self._trust,
            # No proxy or certificates by variables of the environment: the code says where tasks go.
            trust_env=False,
            follow_redirects=False,
            # All tasks share it: what a service says to one is nothing to the next.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            timeout=httpx.Timeout(None, connect=_CONNECT_LIMIT),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=100),
            # Compressed, a small reply could be a very large one.
            headers={"User-Agent": f"asynctaskd/{__version__}", "Accept-Encoding": "identity"},
        )
