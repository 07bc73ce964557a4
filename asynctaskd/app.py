"""The App: what an application declares, and a worker of it inside another application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from asynctaskd.config import load_config
from asynctaskd.definitions.declarations import Declarations
from asynctaskd.postgres import embedded

if TYPE_CHECKING:
    from asynctaskd.daemon.supervisor import Daemon

_OF_DATABASE = {"schema", "pool_size", "listen", "listen_url"}


class App(Declarations):
    """The tasks of an application: declared by decorators, run by `asynctaskd run --app module:app`."""

    @asynccontextmanager
    async def worker(self, database: str, **settings: Any) -> AsyncIterator[Daemon]:
        """Run a worker of this App in this event loop, for as long as the block lasts.

        It is the one that `asynctaskd run` starts, without signal handlers. The block begins when it is ready
        to claim; at its end it stops claiming and drains, for `grace` at most. Should it crash, the task that
        entered the block is cancelled, and the block raises the worker's error.

        Args:
            database: a URL, or `embedded`.
            settings: those of the sections `worker` and `database` of the configuration, by their names, such
                as `concurrency=20, labels=["mail"], schema="tasks"`. The environment isn't read.

        Raises:
            ConfigError: a setting is wrong.
            InvalidDefinitionError: a failure task is missing, or can't be enqueued.
            SchemaVersionError, DatabaseRefusedError: like `asynctaskd run`.
        """
        from asynctaskd.daemon.supervisor import Daemon  # noqa: PLC0415  (whoever only enqueues needs none)

        self.check()
        given = {_key(name): value for name, value in settings.items()}
        config = load_config(None, {}, given | {"database.url": database})
        dsn = await asyncio.to_thread(embedded.resolve, database)
        async with _alive(Daemon(self, dsn, config)) as daemon:
            yield daemon


@asynccontextmanager
async def _alive(daemon: Daemon) -> AsyncIterator[Daemon]:
    host = asyncio.current_task()
    life = asyncio.create_task(daemon.run(), name="asynctaskd worker")
    if host is not None:
        life.add_done_callback(lambda _: _has_crashed(life) and host.cancel())
    try:
        try:
            await daemon.ready.wait()
            yield daemon
        finally:
            await _drained(daemon, life)
    except asyncio.CancelledError:
        if host is not None and _has_crashed(life):
            host.uncancel()
            life.result()
        raise
    life.result()


async def _drained(daemon: Daemon, life: asyncio.Task[None]) -> None:
    daemon.stop()
    try:
        await asyncio.wait({life})
    except asyncio.CancelledError:  # like a second signal: it gives up what it runs
        daemon.stop()
        await asyncio.wait({life})
        raise


def _has_crashed(life: asyncio.Task[None]) -> bool:
    return life.done() and not life.cancelled() and life.exception() is not None


def _key(name: str) -> str:
    return f"{'database' if name in _OF_DATABASE else 'worker'}.{name}"
