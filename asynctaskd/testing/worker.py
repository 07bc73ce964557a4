"""A real worker in the test's own event loop, on the test's own database."""

from __future__ import annotations

from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from asynctaskd.app import App
from asynctaskd.testing.clock import Clock


class Worker:
    """A worker that runs from the beginning of an `async with` block to its end.

    It is that of `App.worker`, which says what happens where it can't start or crashes; but at the end of the
    block it doesn't let running tasks finish, unless `grace` says so.

    Args:
        app: the tasks it knows.
        dsn: the database's URL.
        clock: what moves the time of that database; None: nobody does.
        settings: those of `App.worker`: `concurrency=1`, `labels=["mail"]`.
    """

    def __init__(self, app: App, dsn: str, *, clock: Clock | None = None, **settings: Any) -> None:
        self._worker = app.worker(dsn, **{"grace": "0s"} | settings)
        self._clock = clock or Clock(dsn, schema=settings.get("schema", "asynctaskd"))
        self._block = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start; returns once it works."""
        async with AsyncExitStack() as stack:
            self._daemon = await stack.enter_async_context(self._worker)
            await stack.enter_async_context(self._clock.known(self._daemon))
            self._block = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Stop; what still runs is cancelled and put back."""
        return await self._block.__aexit__(kind, error, trace)

    async def drain(self) -> None:
        """Until nothing is due and nothing runs; what waits for a later time isn't waited for.

        How tasks ended is for `client.wait` and `client.get_task` to say.
        """
        await self._daemon.work_off()
