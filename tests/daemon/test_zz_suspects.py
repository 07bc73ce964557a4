from __future__ import annotations
import asyncio, threading, json
import pytest
from asynctaskd import *
from asynctaskd.errors import DatabaseUnavailableError
from asynctaskd.postgres.store import Store
from asynctaskd.daemon.supervisor import Daemon
from pydantic import BaseModel, field_validator

async def soon(e): await asyncio.wait_for(e.wait(), 10)

async def test_sync_ctx_remaining(app, running, client, wait):
    @app.task("t")
    def t(ctx: TaskContext) -> float:
        return ctx.remaining().total_seconds()
    async with running(app):
        assert (await wait(await client.enqueue("t"))).result > 0

async def test_sync_stopiteration(app, running, client, tables):
    @app.task("t")
    def t() -> None:
        next(iter([]))
    async with running(app, grace="0s", leaves_tasks=True):
        i = await client.enqueue("t")
        await asyncio.wait_for(tables.until_status(i, "failed"), 3)

@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
async def test_hook_raises_base(app, running, client, tables, error):
    @app.task("t")
    async def t() -> None: raise ValueError
    @t.on_failed
    async def h(p, f, tx): raise error("x")
    async with running(app, grace="0s", leaves_tasks=True):
        i = await client.enqueue("t")
        await asyncio.wait_for(tables.until_status(i, "failed"), 8)

async def test_stop_during_slow_hook(app, running, client, tables):
    entered = asyncio.Event()
    @app.task("t")
    async def t() -> None: raise ValueError
    @t.on_failed
    async def h(p, f, tx):
        entered.set(); await asyncio.sleep(100)
    async with running(app, grace="0s") as d:
        i = await client.enqueue("t")
        await soon(entered)
        t0 = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - t0 < 4
    assert (await tables.task(i))["status"] == "pending"

async def test_claim_answer_lost(app, running, client, tables, wait, monkeypatch):
    @app.task("t")
    async def t() -> None: pass
    original = Store.claim
    state = {"n": 0}
    async def claim(self, *a, **k):
        rows = await original(self, *a, **k)
        if rows and not state["n"]:
            state["n"] = 1
            raise DatabaseUnavailableError("answer lost")
        return rows
    monkeypatch.setattr(Store, "claim", claim)
    async with running(app, lease="1500ms", renew_interval="500ms"):
        i = await client.enqueue("t")
        await asyncio.wait_for(wait(i), 6)

async def test_quarantine_through_unroutable(app, running, client, tables, wait):
    ran = []
    @app.task("t")
    async def t() -> None: ran.append(1)
    i = await client.enqueue("t")
    await tables.execute("UPDATE asynctaskd.tasks SET reason='quarantined', losses=3 WHERE id=$1", i)
    async with running(App()):
        await tables.until("SELECT status='scheduled' FROM asynctaskd.tasks WHERE id=$1", i)
    r = await tables.task(i); print(r["losses"], r["reason"])
    async with running(app):
        await tables.until("SELECT status IN ('failed','completed') FROM asynctaskd.all_tasks WHERE id=$1", i)
    r = await tables.task(i)
    assert (r["status"], ran) == ("failed", [])
    assert r["losses"] == 3

async def test_own_reclaim_thread(app, running, client, tables, recorder):
    free = threading.Event(); started = []; 
    @app.task("t")
    def t() -> None:
        started.append(1); free.wait(10)
    async with running(app, lease="1500ms", renew_interval="500ms") as d:
        try:
            i = await client.enqueue("t")
            await tables.until("SELECT status='running' FROM asynctaskd.tasks WHERE id=$1", i)
            while not started: await asyncio.sleep(0.01)
            await tables.execute("UPDATE asynctaskd.workers SET lost_at = clock_timestamp()")
            await recorder.wait_for("lease.lost")
            await asyncio.sleep(3)
            assert len(started) == 1
        finally:
            free.set()

async def test_renew_hangs(app, running, client, tables, connection, recorder):
    entered, cancelled = asyncio.Event(), asyncio.Event()
    @app.task("t")
    async def t() -> None:
        entered.set()
        try: await asyncio.sleep(100)
        finally: cancelled.set()
    async with running(app, lease="1500ms", renew_interval="500ms") as d:
        i = await client.enqueue("t")
        await soon(entered)
        async with connection.transaction():
            await connection.execute("SELECT FROM asynctaskd.workers FOR UPDATE")
            await asyncio.wait_for(cancelled.wait(), 2.0)

async def test_once_strict_cap_zero(app, daemon_of, client):
    @app.task("t", priority=5)
    async def t() -> None: pass
    await client.enqueue("t", priority=5)
    d = daemon_of(app, max_strict_percentage=0)
    await asyncio.wait_for(d.run(once=True), 5)

async def test_once_serial(app, daemon_of, client, tables):
    @app.task("t")
    async def t() -> None: pass
    for i in range(100): await client.enqueue("t", serial_key="k")
    d = daemon_of(app)
    await asyncio.wait_for(d.run(once=True), 10)
    assert await tables.value("SELECT count(*) FROM asynctaskd.tasks") == 0

async def test_cancel_run_leaves_nothing(app, daemon_of, client):
    entered = asyncio.Event()
    @app.task("t")
    async def t() -> None:
        entered.set(); await asyncio.sleep(100)
    d = daemon_of(app)
    before = asyncio.all_tasks()
    life = asyncio.create_task(d.run())
    await client.enqueue("t"); await soon(entered)
    life.cancel()
    with pytest.raises(asyncio.CancelledError): await life
    for _ in range(10): await asyncio.sleep(0)
    assert not {t for t in asyncio.all_tasks() - before}

async def test_loop_crash_leaves_nothing(app, daemon_of, client, monkeypatch):
    entered = asyncio.Event()
    @app.task("t")
    async def t() -> None:
        entered.set(); await asyncio.sleep(100)
    async def boom(self): raise RuntimeError("boom")
    d = daemon_of(app)
    before = asyncio.all_tasks()
    life = asyncio.create_task(d.run())
    await client.enqueue("t"); await soon(entered)
    monkeypatch.setattr(Store, "recover", boom)
    with pytest.raises(BaseExceptionGroup): await asyncio.wait_for(life, 5)
    for _ in range(10): await asyncio.sleep(0)
    assert not {t for t in asyncio.all_tasks() - before}

async def test_nested_transactions(app, running, client, wait, tables):
    await tables.execute("CREATE TABLE w (n int)")
    @app.task("t")
    async def t(ctx: TaskContext) -> None:
        async with ctx.transaction() as c:
            await c.execute("INSERT INTO w VALUES (1)")
            with pytest.raises(InvalidInputError):
                async with ctx.transaction() as c2: await c2.execute("INSERT INTO w VALUES (2)")
    async with running(app):
        i = await client.enqueue("t")
        await wait(i)
        assert await tables.column("SELECT n FROM w") == [1]

class M(BaseModel):
    a: int
    @field_validator("a")
    @classmethod
    def v(cls, x): raise ZeroDivisionError("boo")

async def test_validator_raises(app, running, client, tables):
    seen = []
    @app.task("t")
    async def t(p: M) -> None: ...
    @t.on_failed
    async def h(p, f, tx): seen.append((p, f))
    async with running(app):
        i = await client.enqueue("t", {"a": 1})
        r = await tables.until_status(i, "failed")
        assert r["reason"] == "invalid_payload", r["last_error"]
        assert seen[0][0] is None

async def test_stop_leave_with_stored(app, running, client, tables):
    entered = asyncio.Event(); free = asyncio.Event()
    @app.task("t")
    async def t(ctx: TaskContext) -> None:
        async with ctx.transaction(): pass
        entered.set()
        while not free.is_set():
            try: await free.wait()
            except asyncio.CancelledError: pass
    async with running(app, grace="0s", leaves_tasks=True):
        i = await client.enqueue("t"); await soon(entered)
    free.set(); await asyncio.sleep(0.05)
    assert await tables.events(i) == []

async def test_deep(app, running, client, tables):
    @app.task("t")
    async def t(payload: dict) -> int: return 1
    async with running(app):
        i = await tables.value("SELECT asynctaskd.enqueue('t', jsonb_build_object('a', (repeat('[',63)||repeat(']',63))::jsonb))")
        await tables.until_status(i, "completed")

async def test_big_numbers_direct(app, running, client, tables):
    @app.task("t")
    async def t(payload: dict) -> int: return 1
    async with running(app):
        i = await tables.value("INSERT INTO asynctaskd.tasks (name, status, payload) VALUES ('t','pending', ('{\"a\":' || repeat('9', 5000) || '}')::jsonb) RETURNING id")
        j = await tables.value("INSERT INTO asynctaskd.tasks (name, status, payload) VALUES ('t','pending', ('{\"a\":' || repeat('[', 3000) || repeat(']',3000) || '}')::jsonb) RETURNING id")
        await tables.until_status(i, "failed")
        await tables.until_status(j, "failed")
        print((await tables.task(i))["reason"], (await tables.task(j))["reason"])

async def test_short_delay(app, running, client, wait):
    @app.task("t")
    async def t() -> None: ...
    async with running(app, poll_interval="1h"):
        i = await client.enqueue("t", delay="50ms")
        await asyncio.wait_for(wait(i), 3)
