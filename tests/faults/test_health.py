"""What a worker says of its health while things go wrong: real processes, asked over HTTP."""

from __future__ import annotations

from signal import SIGTERM

import pytest

from tests.support.asking import ask, until, until_failing, until_ready

ANY_PORT = {"ASYNCTASKD_HTTP_PORT": "0"}


async def test_a_worker_that_can_not_reach_its_database_is_alive_and_says_what_it_waits_for(worker, proxy):
    proxy.refuse()
    async with worker(proxy.dsn, environ=ANY_PORT) as process:
        await process.until_logged("database.lost")
        told = await until_failing(process, "database", "primary", "schema", "listening", "lease")
        assert "unavailable" in told["checks"]["database"]["reason"]
        assert (await ask(process, "/livez"))[0] == 200
        await proxy.restore()
        await until_ready(process)


async def test_a_worker_that_is_disabled_becomes_ready_too(worker):
    async with worker(environ={**ANY_PORT, "ASYNCTASKD_WORKER_ENABLED": "false"}) as process:
        await until_ready(process)


async def test_without_listen_a_worker_is_ready_by_its_poll(worker):
    async with worker(environ={**ANY_PORT, "ASYNCTASKD_DATABASE_LISTEN": "off"}) as process:
        await until_ready(process)
        assert "polls" in (await ask(process, "/readyz"))[1]["checks"]["listening"]["reason"]


@pytest.mark.parametrize("fault", ["refuse", "silence"])
async def test_an_outage_is_named_and_is_no_reason_to_restart(worker, proxy, client, fault):
    async with worker(proxy.dsn, environ=ANY_PORT) as process:
        await until_ready(process)
        if fault == "refuse":
            proxy.refuse()
            proxy.cut()
        else:
            proxy.silence()
        await until(process, "/readyz", lambda told: "database" in told["failing"])
        assert (await ask(process, "/livez"))[0] == 200
        await proxy.restore()
        await until_ready(process)
        task_id = await client.enqueue("quick")
        assert (await client.wait(task_id, timeout="30s")).status == "completed"


async def test_a_worker_that_drains_is_alive_and_says_so(worker, client, witness, go_on):
    async with worker(environ=ANY_PORT, grace="30s") as process:
        await until_ready(process)
        task_id = await client.enqueue("hold")
        await witness.until("start", task_id)
        process.tell(SIGTERM)
        await until_failing(process, "draining")
        assert (await ask(process, "/livez"))[0] == 200
        go_on.touch()
        assert await process.ended() == 0


async def test_a_blocked_loop_is_told_without_waiting_for_it(worker, client, witness, go_on):
    async with worker(environ=ANY_PORT) as process:
        await until_ready(process)
        task_id = await client.enqueue("block")
        await witness.until("start", task_id)
        await process.until_logged("loop.stalled")
        status, told = await ask(process, "/livez")
        assert (status, told["limit_seconds"]) == (200, 60.0)
        assert told["loop_stood_still_seconds"] >= 1.0
        go_on.touch()
        await process.until_logged("loop.recovered")
        await until(process, "/livez", lambda told: told["loop_stood_still_seconds"] < 1.0)
