"""How fast tasks are enqueued, beside what the database takes for the same rows without asynctaskd."""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import asyncpg
import uvloop
from common import SCHEMA, arguments, fresh_schema, report, spread
from noop import app, noop

from asynctaskd import Client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Way = tuple[str, int, Callable[[], Awaitable[object]]]  # what, how many tasks, and what enqueues them

PAYLOAD = '{"user_id":1,"template_id":"welcome"}'
ROW = ("pending", "noop", PAYLOAD, 1)
INSERT = f"""
    INSERT INTO {SCHEMA}.tasks (created_at, status, name, payload, max_attempts)
    VALUES (clock_timestamp(), 'pending', $1, $2::text::jsonb, 1) RETURNING id
"""

# A busy fleet, whose workers nobody has to tell; and enqueuers that tell them all the same.
FLEET = f"""
    INSERT INTO {SCHEMA}.workers (id, name, hostname, pid, version, labels, names, concurrency, expires_at)
    SELECT gen_random_uuid(), gen_random_uuid(), 'host', n, '0', '{{}}', '{{noop}}', 100, 'infinity'
    FROM generate_series(1, 10) AS n
"""
SPEAKING = f"SELECT {SCHEMA}.enqueue($1, $2::text::jsonb), pg_notify('{SCHEMA}_ready', '')"


async def main() -> None:
    """Alternate between the ways, and report medians."""
    options = arguments(__doc__ or "", rounds=7, many=10_000, single=500, connections=50)
    async with fresh_schema(options.database) as (dsn, connection), AsyncExitStack() as stack:
        await connection.execute(FLEET)
        crowd = [await asyncpg.connect(dsn) for _ in range(options.connections)]
        for member in crowd:
            stack.push_async_callback(member.close)
        await crowd[0].add_listener(f"{SCHEMA}_ready", lambda *_: None)
        pairs = [
            many(connection, options.many),
            single(connection, options.single),
            notices(crowd, options.single),
        ]
        rates: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            for what, tasks, way in (way for pair in pairs for way in pair):
                await connection.execute(f"TRUNCATE {SCHEMA}.tasks")
                began = time.perf_counter()
                await way()
                rates.setdefault(what, []).append(tasks / (time.perf_counter() - began))
    rows = [row(ours[0], bare[0], rates) for ours, bare in pairs]
    title = f"tasks enqueued a second; median (min-max) of {options.rounds}"
    report(title, list(rows[0]), rows, as_json=options.json)


def row(ours: str, bare: str, rates: dict[str, list[float]]) -> dict[str, object]:
    ratios = [one / other for one, other in zip(rates[ours], rates[bare], strict=True)]
    return {
        "way": ours,
        "tasks/s": spread(rates[ours]),
        "beside": bare,
        "its tasks/s": spread(rates[bare]),
        "ratio": round(statistics.median(ratios), 2),
    }


def many(connection: asyncpg.Connection, tasks: int) -> tuple[Way, Way]:
    """A chunk of requests with an App, and a bare COPY of such rows."""
    client = Client(connection, app, schema=SCHEMA)
    requests = [noop.request(1, "welcome") for _ in range(tasks)]

    async def copy() -> None:
        await connection.copy_records_to_table(
            "tasks",
            schema_name=SCHEMA,
            columns=["status", "name", "payload", "max_attempts"],
            records=[ROW] * tasks,
        )

    return ("enqueue_many", tasks, lambda: client.enqueue_many(requests)), ("COPY", tasks, copy)


def single(connection: asyncpg.Connection, tasks: int) -> tuple[Way, Way]:
    """One task after the other on one connection, and bare INSERTs of such rows."""
    client = Client(connection, app, schema=SCHEMA)
    request = noop.request(1, "welcome")

    async def enqueue() -> None:
        for _ in range(tasks):
            await client.enqueue(request)

    async def insert() -> None:
        for _ in range(tasks):
            await connection.fetch(INSERT, "noop", PAYLOAD)

    return ("enqueue", tasks, enqueue), ("INSERT", tasks, insert)


def notices(crowd: list[asyncpg.Connection], tasks: int) -> tuple[Way, Way]:
    """Many connections while all workers are busy: silent, and with a NOTIFY for each task."""
    each = tasks // len(crowd)

    def all_at_once(statement: str) -> Callable[[], Awaitable[object]]:
        async def enqueue(connection: asyncpg.Connection) -> None:
            for _ in range(each):
                await connection.fetch(statement, "noop", PAYLOAD)

        return lambda: asyncio.gather(*map(enqueue, crowd))

    silent = all_at_once(f"SELECT {SCHEMA}.enqueue($1, $2::text::jsonb)")
    names = f"enqueue, {len(crowd)} connections", "the same with NOTIFY each"
    return (names[0], each * len(crowd), silent), (names[1], each * len(crowd), all_at_once(SPEAKING))


uvloop.run(main())
