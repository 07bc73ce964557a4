"""What a worker tells over HTTP while things go wrong."""

from __future__ import annotations

import asyncio
import socket
from signal import SIGTERM
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

ANY_PORT = {"ASYNCTASKD_HTTP_PORT": "0"}
LONG_ENOUGH = 60.0
SENT, SAVED = ("asynctaskd_notices_sent_total", ""), ("asynctaskd_notices_saved_total", "")


async def metrics_of(process: Any) -> dict[tuple[str, str], float]:
    """(name, task) → value, as it is told now."""
    told = await process.until_logged("http.serving")
    text = await asyncio.to_thread(lambda: urlopen(f"http://{told['host']}:{told['port']}/metrics").read())
    samples = [one for family in text_string_to_metric_families(text.decode()) for one in family.samples]
    return {(one.name, one.labels.get("task", "")): one.value for one in samples}


async def test_a_blocked_event_loop_can_be_asked_who_blocks_it(worker, client, witness, go_on, tables):
    async with worker(environ=ANY_PORT) as process:
        task_id = await client.enqueue("block")
        await witness.until("start", task_id)
        await process.until_logged("loop.stalled")
        blocked = await metrics_of(process)
        assert blocked["asynctaskd_loop_blocked_seconds", "block"] >= 1.0
        go_on.touch()
        await process.until_logged("loop.recovered")
        after = await metrics_of(process)
    assert ("asynctaskd_loop_blocked_seconds", "block") not in after
    assert after["asynctaskd_loop_stall_seconds_total", "block"] >= 1.0


async def test_a_result_that_came_too_late_is_counted(worker, client, witness, go_on, tables):
    async with worker(environ=ANY_PORT) as process:
        task_id = await client.enqueue("work")
        await witness.until("start", task_id)
        await tables.execute(
            "UPDATE asynctaskd.tasks SET status = 'pending', worker_id = NULL, losses = 1 WHERE id = $1",
            task_id,
        )
        await tables.execute(
            "INSERT INTO asynctaskd.task_events (task_id, claim_token, kind) VALUES ($1, 1, 'lease_lost')",
            task_id,
        )
        go_on.touch()
        await process.until_logged("task.stale_result")
        assert (await metrics_of(process))["asynctaskd_stale_results_total", "work"] == 1


@pytest.mark.parametrize("path", ["/", "/healthz"])
async def test_a_probe_that_asks_for_anything_else_is_told_that_it_is_not_there(worker, path):
    async with worker(environ=ANY_PORT) as process:
        told = await process.until_logged("http.serving")
        with pytest.raises(HTTPError, match="404"):
            await asyncio.to_thread(urlopen, f"http://{told['host']}:{told['port']}{path}")


async def test_a_port_that_is_taken_is_told_and_keeps_no_task_waiting(worker, client):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        async with worker(environ={"ASYNCTASKD_HTTP_PORT": port}) as process:
            task_id = await client.enqueue("quick")
            done = await client.wait(task_id, timeout="30s")
            told = await process.until_logged("http.failed")
    assert done.status == "completed"
    assert (str(told["port"]), told["level"]) == (port, "error")
    assert "in use" in told["error"]


async def test_whoever_asks_and_does_not_listen_keeps_nobody_waiting(worker, client):
    async with worker(environ=ANY_PORT) as process:
        told = await process.until_logged("http.serving")
        with (
            socket.create_connection((told["host"], told["port"])) as silent,
            socket.create_connection((told["host"], told["port"])) as deaf,
        ):
            silent.sendall(b"GET /met")
            deaf.sendall(b"GET /metrics HTTP/1.1\r\n\r\n" * 10_000)
            await metrics_of(process)
            task_id = await client.enqueue("quick")
            assert (await client.wait(task_id, timeout="30s")).status == "completed"
            process.tell(SIGTERM)
            assert await process.ended() == 0


async def test_notices_that_were_sent_and_saved_are_told(worker, client, witness, tables):
    await client.enqueue("quick")  # nobody is there to hear of it
    async with worker(environ=ANY_PORT) as process:
        await tables.until_idle()
        await client.enqueue("quick")
        async with asyncio.timeout(LONG_ENOUGH):
            while (told := await metrics_of(process)).get(SENT, 0) < 1:  # noqa: ASYNC110  (a poll later)
                await asyncio.sleep(0.05)
    assert (told[SENT], told[SAVED]) == (1, 1)
