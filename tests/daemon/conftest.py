"""Daemons in the test's own event loop, on the test's own database.

    async with running(app, concurrency=4) as daemon:
        task_id = await client.enqueue("add", {"a": 1, "b": 2})
        await heard("task.failed")

Nothing here sleeps for a duration: tests wait for events of the daemon, for handlers that say where they are,
and for rows to become what they should be.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from asynctaskd import App, Client, TaskRequest
from asynctaskd.config import DaemonConfig
from asynctaskd.daemon.supervisor import Daemon
from asynctaskd.postgres.statements import Statements
from asynctaskd.telemetry import attach
from tests.support.proxy import MIDDLEMAN

if TYPE_CHECKING:
    import asyncpg

LONG_ENOUGH = 60.0
"""Seconds after which something that should have happened never will."""

Running = Callable[..., AbstractAsyncContextManager[Daemon]]


class Recorder:
    """What the daemons of a test have told, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Mapping[str, Any]]] = []
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def note(self, event: str, facts: Mapping[str, Any]) -> None:
        self.events.append((event, facts))
        self._loop.call_soon_threadsafe(self._news.set)  # the lease has a thread of its own

    def all(self, event: str, **facts: object) -> list[Mapping[str, Any]]:
        """The facts of every event of that name that has at least these facts."""
        return [told for name, told in self.events if name == event and facts.items() <= told.items()]

    async def wait_for(self, event: str, *, times: int = 1, **facts: object) -> Mapping[str, Any]:
        """Until it has been told (that often), which may have been before; returns the last one's facts."""
        try:
            async with asyncio.timeout(LONG_ENOUGH):
                while len(self.all(event, **facts)) < times:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            told = [name for name, _ in self.events]
            raise AssertionError(f"{event} {facts} was told less than {times} times; told: {told}") from None
        return self.all(event, **facts)[-1]


class Tables:
    """What the database says, read behind the client's back."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """A connection with a transaction that goes on until the end of the block."""
        async with self._pool.acquire() as connection, connection.transaction():
            yield connection

    async def execute(self, statement: str, *arguments: Any) -> str:
        return str(await self._pool.execute(statement, *arguments))

    async def value(self, statement: str, *arguments: Any) -> Any:
        return await self._pool.fetchval(statement, *arguments)

    async def column(self, statement: str, *arguments: Any) -> list[Any]:
        return [row[0] for row in await self._pool.fetch(statement, *arguments)]

    async def task(self, task_id: int) -> asyncpg.Record:
        """The task's row, wherever it is."""
        row = await self._pool.fetchrow("SELECT * FROM asynctaskd.all_tasks WHERE id = $1", task_id)
        assert row is not None, f"task {task_id} has no row"
        return row

    async def events(self, task_id: int) -> list[str]:
        """The kinds of the task's events, in order."""
        return await self.column(
            "SELECT kind FROM asynctaskd.task_events WHERE task_id = $1 ORDER BY id", task_id
        )

    async def detail(self, task_id: int, kind: str) -> dict[str, Any]:
        """The detail of the task's last event of that kind."""
        detail = await self.value(
            "SELECT detail FROM asynctaskd.task_events"
            " WHERE task_id = $1 AND kind = $2 ORDER BY id DESC LIMIT 1",
            task_id,
            kind,
        )
        assert detail is not None, f"task {task_id} has no event {kind}: {await self.events(task_id)}"
        return dict(json.loads(detail))

    async def until(self, question: str, *arguments: Any) -> Any:
        """Ask until the answer is true, for what nobody tells; returns the answer."""
        async with asyncio.timeout(LONG_ENOUGH):
            while not (answer := await self.value(question, *arguments)):  # noqa: ASYNC110  (rows tell nobody)
                await asyncio.sleep(0.005)
        return answer

    async def until_idle(self, daemon: Daemon) -> None:
        """Until a worker has said that it waits: what commits from now on wakes it, without a poll."""
        await self.until("SELECT idle FROM asynctaskd.workers WHERE id = $1", daemon.worker_id)

    async def until_status(self, task_id: int, status: str) -> asyncpg.Record:
        """Until the task has that status; returns its row."""
        await self.until("SELECT status = $2 FROM asynctaskd.all_tasks WHERE id = $1", task_id, status)
        return await self.task(task_id)

    async def terminate(self, condition: str = "true") -> int:
        """End the server's side of the daemons' connections; returns how many there were."""
        return int(
            await self.value(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = current_database()"
                f" AND application_name = 'asynctaskd' AND pid <> pg_backend_pid() AND ({condition})"
            )
        )


@pytest.fixture
async def tables(pool: asyncpg.Pool) -> Tables:
    return Tables(pool)


@pytest.fixture
async def recorder() -> AsyncIterator[Recorder]:
    recorder = Recorder()
    detach = attach(recorder.note)
    yield recorder
    detach()


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
async def client(pool: asyncpg.Pool) -> AsyncIterator[Client]:
    """A client without an App, so that everything the daemon must cope with can be enqueued."""
    return Client(pool)


@pytest.fixture
def wait(client: Client) -> Callable[[int], Awaitable[Any]]:
    """Wait for a task's completion; a task that hangs fails its test."""
    return lambda task_id: client.wait(task_id, timeout=f"{LONG_ENOUGH:g}s")


@pytest.fixture
def soon() -> Callable[[asyncio.Event], Awaitable[bool]]:
    """Wait for an event that a handler sets; if it never does, the test fails instead of hanging."""
    return lambda event: asyncio.wait_for(event.wait(), LONG_ENOUGH)


def never() -> None:
    raise AssertionError("the daemon would have ended this process")


@pytest.fixture
def daemon_of(database: Any) -> Callable[..., Daemon]:
    """A daemon on the test's database that isn't running yet: daemon_of(app, concurrency=4, listen="off")."""

    def build(app: App, **settings: Any) -> Daemon:
        names = ("url", "listen", "pool_size", "listen_url")
        own = {"url": database.dsn} | {key: settings.pop(key) for key in names if key in settings}
        end_process = settings.pop("end_process", never)
        role = {name: settings.pop(name) for name in ("app_path", "one_suspect") if name in settings}
        return Daemon(
            app,
            own["url"],
            DaemonConfig.model_validate({"database": own, "worker": {"grace": "10s"} | settings}),
            end_process=end_process,
            **role,
        )

    return build


@pytest.fixture
def at_rest(client: Client, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Awaitable[None]]:
    """Close the client and see its watch to its end, so that only what others left behind is left."""
    watch, looking = client._watch, set[asyncio.Task[None]]()
    look = watch._look

    async def seen() -> None:
        task = asyncio.current_task()
        assert task is not None
        looking.add(task)
        await look()

    async def rest() -> None:
        await client.close()
        for task in looking:
            task.cancel()
        if looking:
            _, still = await asyncio.wait(looking, timeout=LONG_ENOUGH)
            assert not still, "the client's watch doesn't end"
            looking.clear()

    monkeypatch.setattr(watch, "_look", seen)
    return rest


@pytest.fixture
def running(daemon_of: Callable[..., Daemon], at_rest: Callable[[], Awaitable[None]]) -> Iterator[Running]:
    """An async context manager: a daemon that is ready inside its block and has stopped at the end of it.

    However they were stopped, the last to stop must leave no asyncio task behind; `leaves_tasks=True` is for
    handlers that can't be stopped.
    """

    others: set[asyncio.Task[Any]] = set()
    alive: list[Daemon] = []

    @asynccontextmanager
    async def run(app: App, *, leaves_tasks: bool = False, **settings: Any) -> AsyncIterator[Daemon]:
        if not alive:
            others.clear()
            others.update(asyncio.all_tasks())
        daemon = daemon_of(app, **settings)
        life = asyncio.create_task(daemon.run(), name="daemon")
        alive.append(daemon)
        try:
            await ready(daemon, life)
            yield daemon
        finally:
            daemon.stop()
            daemon.stop()
            await asyncio.wait({life}, timeout=LONG_ENOUGH)
            alive.remove(daemon)
            assert life.done(), "the daemon doesn't stop"
            await life  # where it ended with an error, that is why the block failed too
        if not leaves_tasks and not alive:
            await at_rest()
            assert await left_since(others) == set(), "asyncio tasks were left behind"

    return run


async def ready(daemon: Daemon, life: asyncio.Task[None]) -> None:
    """Until the daemon is ready; if it ends before that, its error is raised."""
    waiting = asyncio.create_task(daemon.ready.wait())
    await asyncio.wait({waiting, life}, return_when=asyncio.FIRST_COMPLETED, timeout=LONG_ENOUGH)
    waiting.cancel()
    if life.done():
        await life
    assert daemon.ready.is_set()


async def left_since(before: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """The tasks that are still there, once cancelled ones have had their chance to end."""
    for _ in range(10):
        await asyncio.sleep(0)
    later = asyncio.all_tasks() - before
    return {task for task in later if not task.done() and task.get_name() != MIDDLEMAN}


class Calls(Counter[str]):
    """How often each statement was sent."""

    def __init__(self) -> None:
        super().__init__()
        self._news = asyncio.Event()

    def note(self, name: str) -> None:
        self[name] += 1
        self._news.set()

    async def until(self, name: str, count: int) -> None:
        async with asyncio.timeout(LONG_ENOUGH):
            while self[name] < count:
                self._news.clear()
                await self._news.wait()


@pytest.fixture
def calls(monkeypatch) -> Calls:
    calls, fetch = Calls(), Statements._fetch

    async def counted(self, name, *arguments):
        calls.note(name)
        return await fetch(self, name, *arguments)

    monkeypatch.setattr(Statements, "_fetch", counted)
    return calls


class Hall:
    """Handlers come in and stay until they are let out; it knows at each moment who is there."""

    def __init__(self, app) -> None:
        self.here: dict[int, asyncio.Event] = {}
        self.came = 0
        self.most: Counter[str] = Counter()
        self._now: Counter[str] = Counter()
        self._news = asyncio.Event()
        self.is_open = False
        app.task("stay")(self.stay)

    async def stay(self, labels: str = "") -> None:
        self.came += 1
        me, door = self.came, asyncio.Event()
        self.here[me] = door
        for label in labels.split(","):
            self._now[label] += 1
            self.most[label] = max(self.most[label], self._now[label])
        self._news.set()
        if not self.is_open:
            await door.wait()
        else:
            await asyncio.sleep(0.002)
        del self.here[me]
        for label in labels.split(","):
            self._now[label] -= 1
        self._news.set()

    async def until(self, condition) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self._news.clear()
                await self._news.wait()

    def open(self, doors: int | None = None) -> None:
        if doors is None:
            self.is_open = True
        for door in [door for door in self.here.values() if not door.is_set()][:doors]:
            door.set()


@pytest.fixture
def hall(app) -> Hall:
    return Hall(app)


@pytest.fixture
def configure(tables):
    """Write the next version of the runtime configuration."""

    async def write(**fields) -> int:
        columns = {
            name: json.dumps(value) if isinstance(value, dict) else value for name, value in fields.items()
        }
        places = "".join(f", ${n}" for n in range(1, len(columns) + 1))
        return await tables.value(
            f"INSERT INTO asynctaskd.runtime_configs (version{''.join(', ' + name for name in columns)})"
            f" SELECT coalesce(max(version), 0) + 1{places} FROM asynctaskd.runtime_configs"
            " RETURNING version",
            *columns.values(),
        )

    return write


@pytest.fixture
def fleet(app, running):
    """Several daemons: async with fleet(2, concurrency=10, labels=[…])."""

    @asynccontextmanager
    async def start(size: int, **settings):
        async with AsyncExitStack() as stack:
            settings = {"renew_interval": "20ms"} | settings
            yield [await stack.enter_async_context(running(app, **settings)) for _ in range(size)]

    return start


@pytest.fixture
def applied(tables):
    """Until every daemon has applied a version."""

    async def wait(version: int) -> None:
        await tables.until(
            "SELECT bool_and(applied_config_version >= $1) FROM asynctaskd.workers WHERE stopped_at IS NULL",
            version,
        )

    return wait


def stays(count: int, *labels: str, **options) -> list[TaskRequest]:
    return [TaskRequest("stay", {"labels": ",".join(labels)}, labels=list(labels), **options)] * count
