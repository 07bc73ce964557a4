"""LISTEN is kept up: it hears, it notices that it is deaf or cut off, and it comes back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import asyncpg
import pytest

from asynctaskd.postgres import listener as module
from asynctaskd.postgres.listener import Listener
from asynctaskd.telemetry.events import attach

if TYPE_CHECKING:
    from tests.conftest import Connection, Database

CHANNEL = "asynctaskd_ready"
LISTENERS = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'asynctaskd' AND backend_type = 'client backend'
"""


class Ears:
    """A listener at work, and what it says, each in a queue of its own."""

    def __init__(self, dsn: str) -> None:
        self.heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.woken: asyncio.Queue[None] = asyncio.Queue()
        self.lost: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        self.up: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
        self.listener = Listener(
            dsn,
            {channel: partial(self.hear, channel) for channel in (CHANNEL, "other")},
            wake=lambda: self.woken.put_nowait(None),
        )

    def hear(self, channel: str, payload: str) -> None:
        self.heard.put_nowait((channel, payload))

    def note(self, event: str, facts: Mapping[str, Any]) -> None:
        (self.up if event == "listener.up" else self.lost).put_nowait(facts)


@asynccontextmanager
async def listening(dsn: str) -> AsyncIterator[Ears]:
    ears = Ears(dsn)
    detach = attach(ears.note, "listener.up", "listener.lost")
    running = asyncio.create_task(ears.listener.run())
    try:
        async with asyncio.timeout(30):
            yield ears
    finally:
        detach()
        while not running.done():  # once should be enough, which has a test of its own
            running.cancel()
            await asyncio.wait([running], timeout=0.1)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat at once: the pauses have a test of their own."""
    monkeypatch.setattr(module.random, "uniform", lambda *_: 0.0)


async def cut(connection: Connection) -> None:
    await connection.fetch(f"SELECT pg_terminate_backend(pid) FROM ({LISTENERS}) AS listener")


async def test_it_hears_a_notice_and_its_payload(database: Database, connection: Connection) -> None:
    async with listening(database.dsn) as ears:
        await ears.woken.get()
        await connection.execute(f"NOTIFY {CHANNEL}, 'a,b'")
        await connection.execute("NOTIFY other")
        assert await ears.heard.get() == (CHANNEL, "a,b")
        assert await ears.heard.get() == ("other", "")


async def test_it_says_when_it_listens_and_wakes_once(database: Database, connection: Connection) -> None:
    async with listening(database.dsn) as ears:
        await ears.woken.get()
        assert ears.listener.up.is_set()
        assert await ears.up.get() == {"channels": [CHANNEL, "other"]}
        await connection.execute(f"NOTIFY {CHANNEL}")
        await ears.heard.get()
        assert ears.woken.empty()
        assert ears.lost.empty()


async def test_its_own_probe_is_no_notice(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed, probe = asyncio.Semaphore(0), Listener._probe

    async def counted(listener: Listener, own: asyncpg.Connection[asyncpg.Record]) -> None:
        await probe(listener, own)
        probed.release()

    monkeypatch.setattr(module, "PROBE_INTERVAL", 0.001)
    monkeypatch.setattr(Listener, "_probe", counted)
    async with listening(database.dsn) as ears:
        for _ in range(3):
            await probed.acquire()
        await connection.execute(f"NOTIFY {CHANNEL}, 'only this'")
        assert await ears.heard.get() == (CHANNEL, "only this")
        assert ears.lost.empty()


@pytest.mark.usefixtures("no_pauses")
async def test_it_warns_when_the_queue_of_notices_fills(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
    detach = attach(lambda _, facts: told.put_nowait(facts), "notices.crowded")
    monkeypatch.setattr(module, "_CROWDED", -1.0)
    async with listening(database.dsn):
        assert (await told.get())["usage"] >= 0
    detach()


async def test_it_comes_back_when_its_backend_is_terminated(
    database: Database, connection: Connection
) -> None:
    async with listening(database.dsn) as ears:
        await ears.woken.get()
        [before] = await connection.fetch(LISTENERS)
        for _ in range(3):
            await cut(connection)
            await ears.lost.get()
            await ears.woken.get()
        await connection.execute(f"NOTIFY {CHANNEL}, 'again'")
        assert await ears.heard.get() == (CHANNEL, "again")
        assert before not in await connection.fetch(LISTENERS)


@pytest.mark.usefixtures("no_pauses")
async def test_what_was_missed_while_it_was_away_is_why_it_wakes(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_connect, connect = asyncio.Event(), module.open_connection

    async def later(dsn: str) -> asyncpg.Connection[asyncpg.Record]:
        await may_connect.wait()
        return await connect(dsn)

    may_connect.set()
    monkeypatch.setattr(module, "open_connection", later)
    async with listening(database.dsn) as ears:
        await ears.woken.get()
        may_connect.clear()
        await cut(connection)
        await ears.lost.get()
        await connection.execute(f"NOTIFY {CHANNEL}, 'missed'")
        may_connect.set()
        await ears.woken.get()
        await connection.execute(f"NOTIFY {CHANNEL}, 'heard'")
        assert await ears.heard.get() == (CHANNEL, "heard")


@pytest.mark.usefixtures("no_pauses")
async def test_it_notices_that_it_is_deaf(
    database: Database, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[asyncpg.Connection[asyncpg.Record]] = []
    subscribe = Listener._subscribe

    async def deaf_at_first(listener: Listener, own: asyncpg.Connection[asyncpg.Record]) -> None:
        await subscribe(listener, own)
        opened.append(own)
        if len(opened) == 1:
            await own.execute("UNLISTEN *")

    monkeypatch.setattr(Listener, "_subscribe", deaf_at_first)
    monkeypatch.setattr(module, "PROBE_TIMEOUT", 0.5)
    async with listening(database.dsn) as ears:
        await ears.woken.get()
        assert "no notice came back within 0.5 s" in (await ears.lost.get())["error"]
        monkeypatch.setattr(module, "PROBE_TIMEOUT", 10.0)
        await ears.woken.get()
        await connection.execute(f"NOTIFY {CHANNEL}, 'again'")
        assert await ears.heard.get() == (CHANNEL, "again")
        assert opened[0].is_closed()


async def test_a_database_that_is_away_is_asked_again_after_growing_pauses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    sleep = asyncio.sleep

    async def at_once(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(module.asyncio, "sleep", at_once)
    with socket.socket() as nobody:  # bound, but it doesn't listen
        nobody.bind(("127.0.0.1", 0))
        async with listening(f"postgresql://nobody@127.0.0.1:{nobody.getsockname()[1]}/none") as ears:
            lost = [await ears.lost.get() for _ in range(8)]
            assert not ears.listener.up.is_set()
            assert ears.woken.empty()
    pauses = [facts["retry_in"] for facts in lost]
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]
    assert all("unavailable" in facts["error"] for facts in lost)
    assert all(pause / 2 <= real <= pause for pause, real in zip(pauses, slept, strict=False))


async def test_who_cancels_it_leaves_no_connection_behind(database: Database, connection: Connection) -> None:
    async with listening(database.dsn) as ears:
        await ears.woken.get()
        [[pid]] = await connection.fetch(LISTENERS)
    assert not ears.listener.up.is_set()
    async with asyncio.timeout(10):  # the server takes its time to end a backend
        while await connection.fetchval("SELECT true FROM pg_stat_activity WHERE pid = $1", pid):
            await connection.execute("SELECT pg_stat_clear_snapshot()")


async def test_a_cancellation_beside_the_echo_of_a_probe_is_heeded(database: Database) -> None:
    asked = asyncio.Event()

    class Echo(asyncio.Event):
        async def wait(self) -> Literal[True]:
            if not asked.is_set():
                running.cancel()
                asked.set()
            return True

    listener = Listener(database.dsn, {CHANNEL: lambda _: None}, wake=lambda: None)
    listener._echo = Echo()
    running = asyncio.create_task(listener.run())
    await asked.wait()
    ended, _ = await asyncio.wait([running], timeout=3)
    while not running.done():
        running.cancel()
        await asyncio.wait([running], timeout=0.1)
    assert ended
