"""What an application does, under either release: `python calls.py FUNCTION '[ARGUMENTS]'` prints JSON."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from asynctaskd import Client, TaskRequest

LIMIT = "20s"


async def enqueue(client: Client, label: str) -> list[Any]:
    """Results of tasks that only workers with that label run, enqueued in each way there is."""
    author = os.environ["RELEASE"]
    one = await client.enqueue(
        "note",
        {"text": author},
        labels=[label],
        priority=5,
        tags=["upgrade"],
        unique_tag=f"{author} to {label}",
        serial_key=label,
        retry="1s",
        metadata={"author": author},
    )
    child = await client.enqueue("note", {"text": author}, labels=[label], parent_id=one, depends_on=[one])
    many = await client.enqueue_many(
        [TaskRequest("note", {"text": author}, labels=[label], weight=weight) for weight in (1, 2)]
    )
    tasks = [await client.wait(task, timeout=LIMIT) for task in (one, child, *many)]
    return [task.result for task in tasks]


async def flood(client: Client, count: int) -> list[int]:
    """Ids of so many tasks for any worker, one transaction after the other."""
    return [await client.enqueue("note", {"text": "flood"}) for _ in range(count)]


async def hold(client: Client, *labels: str) -> list[int]:
    """Ids of tasks that such workers run until they are told to stop, one for each label."""
    return [await client.enqueue("hold", {}, labels=[label]) for label in labels]


async def cancel(client: Client, *tasks: int) -> list[Any]:
    """What became of each by being cancelled."""
    receipts = [await client.cancel(task) for task in tasks]
    return [[one.outcome, one.status] for receipt in receipts for one in receipt.tasks]


async def pause(client: Client, *tasks: int) -> list[Any]:
    """What became of each by being paused."""
    receipts = [await client.pause(task) for task in tasks]
    return [[one.outcome, one.status] for receipt in receipts for one in receipt.tasks]


async def configure(client: Client, weight: int) -> list[Any]:
    """How a change of the runtime configuration went, and how many workers apply it."""
    report = await client.update_runtime_config(weights={"mail": weight}, timeout=LIMIT)
    return [report.status, len(report.applied)]


async def main(function: str, arguments: str) -> None:
    """Call one of these."""
    async with Client(os.environ["ASYNCTASKD_DATABASE_URL"]) as client:
        answer = await globals()[function](client, *json.loads(arguments))
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
