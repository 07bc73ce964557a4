"""An operator who steers while everything breaks, and keeps what was asked and answered in the fault log.

That an answer never comes is a normal case: what became of it is in the rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any

import asyncpg

from asynctaskd import Client, TaskRequest
from asynctaskd.control.receipts import Receipt
from asynctaskd.definitions.cron import Cron
from asynctaskd.errors import AsynctaskdError, InvalidStateError
from tests.chaos.journal import Journal
from tests.chaos.workload import BATCHES, LABELS
from tests.support.proxy import Proxy

_OUTAGE = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, AsynctaskdError)
_CONNECT_LIMIT = 3.0
_WAIT = "3s"
"""How long an operator waits for executions to stop, and for workers to apply a version."""

_ANSWER_LIMIT = 15.0
_HANDS = 4
"""Commands beside each other, so that they race."""

_PAUSE = (0.0, 0.6)
"""Seconds from one command of a hand to its next."""

_OFTEN_RUNNING = 0.6

_LIVE = ("scheduled", "waiting", "pending", "running", "paused")
_ENDED = ("failed", "cancelled", "expired")

_WEIGHTS = {"red": 3, "blue": 1}
_CONTEST = {"red": 1400, "blue": 550, "": 550}
"""So many tasks of each group at once: enough for a thousand claims while all have a backlog."""

_RUSH = 40

_NOTHING: dict[str, Any] = {
    "max_strict_percentage": 100,
    "default_weight": 1,
    "weights": {},
    "limits": {},
    "paused_labels": [],
    "paused_names": [],
}

CLOCKS = {
    "ticking": Cron("* * * * * *", missed="all", limit=1000, overlap="allow"),
    "tocking": Cron("* * * * * *", missed="once", overlap="skip"),
}
"""Schedules by name, which is also that of their task. The first one goes on all the time."""

Act = Callable[[Client, asyncpg.Connection], Awaitable[None]]


class Operator:
    """Steers until told to stop, from `hands` hands at once; `restore` lets everything go on."""

    def __init__(
        self, proxy: Proxy, journal: Journal, *, seed: int, seconds: float, contest: bool = True
    ) -> None:
        self._dsn = proxy.dsn
        self._journal = journal
        self._random = Random(seed + 2)
        self._seconds = seconds
        self._contest = contest
        self.answered = 0
        self.unanswered = 0

    async def run(self) -> None:
        """A contest of the groups, then whatever comes to mind until the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._seconds):
                while not await self._act(self._start_clocks):
                    await asyncio.sleep(0.2)
                if self._contest:
                    await self._act(self._let_groups_compete)
                async with asyncio.TaskGroup() as group:
                    for _ in range(_HANDS):
                        group.create_task(self._go_on())

    async def restore(self) -> None:
        """Lift every limit and pause, until that has been answered."""
        while self._seconds and not await self._act(self._lift_all):
            await asyncio.sleep(0.2)

    async def resume_all(self) -> None:
        """Let go on what is paused; said again and again, since executions may still be stopping."""
        while True:
            await self._act(self._resume_all)
            await asyncio.sleep(1.0)

    async def _go_on(self) -> None:
        acts = {
            self._stop_one: 30.0,
            self._stop_family: 20.0,
            self._stop_batch: 4.0,
            self._resume_all: 6.0,
            self._resume_one: 6.0,
            self._retry_one: 10.0,
            self._retry_batch: 1.0,
            self._change_config: 14.0,
            self._rush: 4.0,
            self._stop_clock: 3.0,
            self._start_clock: 5.0,
        }
        while True:
            [act] = self._random.choices(list(acts), list(acts.values()))
            await self._act(act)
            await asyncio.sleep(self._random.uniform(*_PAUSE))

    async def _act(self, act: Act) -> bool:
        """Whether an answer came."""
        connection: asyncpg.Connection | None = None
        try:
            async with asyncio.timeout(_ANSWER_LIMIT):
                connection = await asyncpg.connect(self._dsn, timeout=_CONNECT_LIMIT)
                await act(Client(connection), connection)
        except _OUTAGE as error:
            self.unanswered += 1
            self._journal.event("unanswered", act=act.__name__.strip("_"), error=repr(error)[:200])
            return False
        finally:
            if connection is not None:
                connection.terminate()
        return True

    # commands

    async def _stop_one(self, client: Client, connection: asyncpg.Connection) -> None:
        statuses = ("running",) if self._random.random() < _OFTEN_RUNNING else _LIVE
        task = await self._any(connection, statuses)
        if task is None:
            return
        action = self._random.choices(["pause", "cancel", "expire", "fail"], [4, 4, 1, 2])[0]
        reason = "the operator says so" if action == "fail" else None
        await self._command(client, connection, action, {"ids": [task]}, reason=reason)

    async def _stop_family(self, client: Client, connection: asyncpg.Connection) -> None:
        statuses = ("running",) if self._random.random() < _OFTEN_RUNNING else _LIVE
        task = await self._any(connection, statuses, "name = 'family'")
        if task is not None:
            action = self._random.choice(["pause", "cancel"])
            await self._command(client, connection, action, {"ids": [task]})

    async def _stop_batch(self, client: Client, connection: asyncpg.Connection) -> None:
        tags = [f"batch:{self._random.randrange(BATCHES)}", "some"]
        selection: dict[str, Any] = {"tags": tags, "except_tags": [["spared"]]}
        await self._command(client, connection, self._random.choice(["pause", "cancel"]), selection)

    async def _resume_one(self, client: Client, connection: asyncpg.Connection) -> None:
        task = await self._any(connection, ["paused"])
        if task is not None:
            await self._command(client, connection, "resume", {"ids": [task]})

    async def _resume_all(self, client: Client, connection: asyncpg.Connection) -> None:
        await self._command(client, connection, "resume", {"status": "paused"})

    async def _retry_one(self, client: Client, connection: asyncpg.Connection) -> None:
        task = await self._any(connection, _ENDED)
        if task is not None:
            await self._command(client, connection, "retry", {"ids": [task]})

    async def _retry_batch(self, client: Client, connection: asyncpg.Connection) -> None:
        tags = [f"batch:{self._random.randrange(BATCHES)}", "some"]
        await self._command(client, connection, "retry", {"tags": tags, "status": "cancelled"})

    async def _command(
        self, client: Client, connection: asyncpg.Connection, action: str, selection: Any, **options: Any
    ) -> None:
        receipt = await client.command(action, selection, timeout=_WAIT, **options)
        await self._note(connection, action, **_told(receipt))

    async def _any(
        self, connection: asyncpg.Connection, statuses: Any, condition: str = "true"
    ) -> int | None:
        return await connection.fetchval(
            "SELECT id FROM asynctaskd.all_tasks WHERE status = ANY ($1) AND name NOT IN"
            f" ('updateWorkerRuntimeConfig', 'poison') AND ({condition}) ORDER BY random() LIMIT 1",
            list(statuses),
        )

    # schedules

    async def _start_clocks(self, client: Client, connection: asyncpg.Connection) -> None:
        for schedule, cron in CLOCKS.items():
            with suppress(InvalidStateError):  # it was started, and the answer got lost
                await client.add_schedule(schedule, cron)

    async def _stop_clock(self, client: Client, connection: asyncpg.Connection) -> None:
        await client.pause_schedule("tocking")

    async def _start_clock(self, client: Client, connection: asyncpg.Connection) -> None:
        await client.resume_schedule("tocking")

    # the configuration

    async def _change_config(self, client: Client, connection: asyncpg.Connection) -> None:
        rng = self._random
        choices: list[dict[str, Any]] = [
            {"weights": {label: rng.randint(1, 5) for label in LABELS}},
            {"weights": {}},
            {"max_strict_percentage": rng.choice([0, 20, 50])},
            {"max_strict_percentage": 100},
            {"limits": {rng.choice(LABELS): rng.randint(1, 6)}},
            {"limits": dict.fromkeys(LABELS, rng.randint(2, 8))},
            {"limits": {}},
            {"paused_labels": [rng.choice(LABELS)]},
            {"paused_labels": []},
            {"paused_names": [rng.choice(["quiet", "flaky", "snoozing"])]},
            {"paused_names": []},
            {"paused_names": [], "paused_labels": [], "limits": {}},
        ]
        await self._configure(client, connection, rng.choice(choices))

    async def _rush(self, client: Client, connection: asyncpg.Connection) -> None:
        """More of a limited label than may run at once."""
        label = self._random.choice(LABELS)
        await self._configure(client, connection, {"limits": {label: self._random.randint(1, 6)}})
        await client.enqueue_many(
            TaskRequest("slow", {"seconds": self._random.uniform(0.1, 0.5)}, labels=[label])
            for _ in range(_RUSH)
        )

    async def _configure(
        self, client: Client, connection: asyncpg.Connection, change: dict[str, Any]
    ) -> None:
        report = await client.update_runtime_config(timeout=_WAIT, **change)
        facts = {"version": report.version, "status": report.status, "change": change}
        await self._note(connection, "config", **facts, applied=[str(worker) for worker in report.applied])

    async def _lift_all(self, client: Client, connection: asyncpg.Connection) -> None:
        for schedule in CLOCKS:
            with suppress(InvalidStateError):  # it was never started
                await client.pause_schedule(schedule)
        await self._configure(client, connection, _NOTHING)

    async def _let_groups_compete(self, client: Client, connection: asyncpg.Connection) -> None:
        await self._configure(client, connection, _NOTHING | {"weights": _WEIGHTS})
        await client.enqueue_many(
            TaskRequest("brief", {}, labels=[label] if label else [])
            for label, number in _CONTEST.items()
            for _ in range(number)
        )
        while await connection.fetchval("SELECT count(*) FROM asynctaskd.tasks WHERE name = 'brief'") > 200:
            await asyncio.sleep(0.2)

    async def _note(self, connection: asyncpg.Connection, action: str, **facts: Any) -> None:
        """With the database's clock; that of the journal is only about when it was written."""
        self.answered += 1
        at = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
        self._journal.event("answered", action=action, **facts, at=at)


def _told(receipt: Receipt) -> dict[str, Any]:
    tasks = [(one.task_id, one.outcome) for one in receipt.tasks]
    return {"request": str(receipt.request_id), "tasks": tasks}
