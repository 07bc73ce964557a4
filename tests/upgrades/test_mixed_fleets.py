"""Workers and clients of two releases on one database: whichever comes first, and whoever asks whom."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from asynctaskd.postgres.scratch import connected
from tests.upgrades.releases import PATIENCE, Release, stop


@pytest.fixture(params=["old first", "new first"])
async def fleet(request: pytest.FixtureRequest, old: Release, new: Release) -> AsyncIterator[None]:
    """A worker of each release: the old one from before the migration on, or as one that joins later."""
    async with AsyncExitStack() as stack:
        if request.param == "old first":
            await old.command("migrate")
            await stack.enter_async_context(old.worker())
            await new.command("migrate")
            await stack.enter_async_context(new.worker())
        else:
            await new.command("migrate")
            await stack.enter_async_context(new.worker())
            await stack.enter_async_context(old.worker())
        yield


@pytest.mark.usefixtures("fleet")
async def test_releases_run_each_others_tasks_and_obey_each_others_commands(
    old: Release, new: Release
) -> None:
    pairs = [(client, worker) for client in (old, new) for worker in (old, new)]
    results = await asyncio.gather(*(client.call("enqueue", worker.name) for client, worker in pairs))
    assert results == [[f"{client.name} by {worker.name}"] * 4 for client, worker in pairs]

    for turn, client in enumerate((old, new), start=1):
        assert await client.call("configure", turn) == ["converged", 2]

    held = [task for client in (old, new) for task in await client.call("hold", "old", "new")]
    await until(old, "SELECT count(*) = 4 FROM asynctaskd.tasks WHERE name = 'hold' AND status = 'running'")
    assert await new.call("cancel", *held[:2]) == [["stopped", "cancelled"]] * 2
    assert await old.call("pause", *held[2:]) == [["stopped", "paused"]] * 2

    await asyncio.gather(sees_both(old), sees_both(new))


async def sees_both(release: Release) -> None:
    """See that a release's command line finds two live workers and nothing to complain of."""
    found = json.loads(await release.command("check", "--json"))
    findings = {one["check"]: (one["status"], one["message"]) for one in found}
    assert findings["workers"][1].startswith("2 live")
    assert {findings[check][0] for check in ("schema", "workers", "runtime", "rights")} == {"ok"}


async def until(release: Release, question: str) -> None:
    """Ask its database until the answer is true."""
    async with connected(release.dsn) as connection, asyncio.timeout(PATIENCE):
        while not await connection.fetchval(question):  # noqa: ASYNC110  (rows tell nobody)
            await asyncio.sleep(0.05)


def lines(release: Release) -> list[str]:
    """What tasks have written so far."""
    return release.witness.read_text().splitlines() if release.witness.exists() else []


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_rolling_change_of_release_under_load_loses_no_task_and_runs_none_twice(
    direction: str, old: Release, new: Release
) -> None:
    before, after = (old, new) if direction == "up" else (new, old)
    await before.command("migrate")
    async with AsyncExitStack() as stack:
        fleet = [await stack.enter_async_context(before.worker()) for _ in range(2)]
        load = [asyncio.create_task(client.call("flood", 400)) for client in (old, new)]
        await until(before, "SELECT count(*) >= 100 FROM asynctaskd.finished_tasks")
        if direction == "up":
            await new.command("migrate")
        for leaving in fleet:
            await stack.enter_async_context(after.worker())
            await stop(leaving)
        load += [asyncio.create_task(client.call("flood", 50)) for client in (old, new)]
        enqueued = [task for ids in await asyncio.gather(*load) for task in ids]
        await until(old, "SELECT count(*) = 0 FROM asynctaskd.tasks")
    ran = Counter(int(line.split()[1]) for line in lines(old))
    assert ran == Counter(enqueued)
    assert {line.split()[0] for line in lines(old)} == {"old", "new"}
    async with connected(old.dsn) as connection:
        rows = await connection.fetch(
            "SELECT status, attempts, count(*) FROM asynctaskd.all_tasks GROUP BY 1, 2"
        )
    assert [tuple(row) for row in rows] == [("completed", 1, len(enqueued))]
