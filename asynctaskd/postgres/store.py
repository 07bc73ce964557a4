"""Where tasks are kept: one method per statement, thin.

The statements themselves are in `queries/`; what they promise is written there. Methods raise
`DatabaseUnavailableError` and the other errors of `driver.translate`; each call has a deadline.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import asyncpg

from asynctaskd.postgres.claims import Claims
from asynctaskd.postgres.connection import limited
from asynctaskd.postgres.driver import StatementRefusedError, open_pinned_sessions, query, translated
from asynctaskd.postgres.records import DefinitionRow, DuePartition, Namesake, News
from asynctaskd.postgres.sessions import HOT
from asynctaskd.task import ClaimedTask, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta
    from uuid import UUID

    from asynctaskd.postgres.records import Ended, WorkerRow
    from asynctaskd.postgres.sessions import Sessions

# One for each loop that talks to the database, so that none waits for another: claim, finalize, housekeeping,
# control, and those that write hooks' ends and progress.
CONNECTIONS = 5

_NEXT_LOOK = 0.05  # seconds

# `pin_plans` answers first with so many old values, and `unpin_plans` takes them.
_PINNED = 5

# They may touch many rows, or all definitions.
_LONG = frozenset(
    {
        "due_partitions",
        "ensure_partitions",
        "expire",
        "forget_events",
        "forget_tags",
        "forget_workers",
        "keep_failed",
        "promote_due",
        "promote_serial",
        "recover",
        "register_definitions",
        "release_orphans",
        "settle_dependencies",
        "wake_unknown",
    }
)


class Store(Claims):
    """The daemon's own connections and statements."""

    long = _LONG

    def __init__(self, sessions: Sessions, schema: str) -> None:
        super().__init__(sessions, schema)
        self._progress = asyncio.Lock()

    @classmethod
    async def open(cls, dsn: str, *, schema: str, connections: int = CONNECTIONS) -> Store:
        """Connect. Raises DatabaseUnavailableError, DatabaseRefusedError or ConfigError."""
        return cls(await open_pinned_sessions(dsn, size=connections), schema)

    async def close(self) -> None:
        """Close all connections, by force: nothing is under way any more, or nobody waits for it."""
        self.sessions.terminate()

    async def clock(self) -> datetime:
        """The time by the database's clock."""
        moment: datetime = await self._value("clock")
        return moment

    async def release_orphans(self, worker_id: UUID, known: Sequence[int], as_of: datetime) -> int:
        """Put back what a worker holds since `as_of` or longer beside the ids it knows; returns how many."""
        return int(await self._value("release_orphans", worker_id, known, as_of))

    async def finalize(self, batch: Sequence[Ended]) -> set[int]:
        """Write what became of some executions; returns the ids of those whose claim still stood."""
        plain = [one for one in batch if not one.has_tag and one.transition.status is TaskStatus.COMPLETED]
        written = await self._complete(plain) if plain else set()
        rest = [one for one in batch if one.task_id not in written]
        return written | await self._end("finalize", rest, _columns(rest)) if rest else written

    async def _complete(self, batch: Sequence[Ended]) -> set[int]:
        columns = [
            [ended.task_id for ended in batch],
            [ended.claim_token for ended in batch],
            _sparse([ended.transition.result for ended in batch]),
            _sparse([ended.keep for ended in batch]),
        ]
        return await self._end("complete", batch, columns)

    async def _end(self, statement: str, batch: Sequence[Ended], columns: list[list[Any]]) -> set[int]:
        with translated():
            try:
                rows = await self._ask(statement, *columns)
            except asyncpg.CheckViolationError:  # no partition for a day on which records are forgotten
                await self.ensure_partitions(batch)
                rows = await self._ask(statement, *columns)
            return {row[0] for row in rows}

    async def unlocked(self, task_ids: Sequence[int]) -> set[int]:
        """Those of some live tasks that nobody keeps locked."""
        return {row[0] for row in await self._fetch("unlocked", task_ids)}

    async def finalize_on(self, connection: asyncpg.Connection, ended: Ended) -> str | None:
        """Write what became of one execution in the caller's transaction, and return that transaction's id.

        None means that the claim is stale and nothing was written.
        """
        try:
            return await limited(connection, self._finalize_in_savepoint(connection, ended), HOT)
        except asyncpg.CheckViolationError:
            await self.ensure_partitions([ended])
            return await limited(connection, self._finalize_in_savepoint(connection, ended), HOT)

    async def _finalize_in_savepoint(self, connection: asyncpg.Connection, ended: Ended) -> str | None:
        async with connection.transaction():  # so that an error doesn't spoil the caller's transaction
            [before] = await connection.fetch(query("pin_plans", self.schema))
            rows = await connection.fetch(query("finalize", self.schema), *_columns([ended]))
            await connection.fetchrow(query("unpin_plans", self.schema), *before[:_PINNED])
            return _written(rows).get(ended.task_id)

    async def was_committed(self, transaction_id: str, claimed: ClaimedTask) -> bool:
        """Whether a transaction that ended a claim was committed, though its answer got lost.

        Waits until the server knows. One that lacks it, after a failover, may have given its id to another
        transaction, or not have come to it yet: so the row has its say too.
        """
        try:
            # The server ends this wait, no event of ours.
            while (status := await self._value("xact_status", transaction_id)) == "in progress":  # noqa: ASYNC110
                await asyncio.sleep(_NEXT_LOOK)
        except StatementRefusedError:
            return False
        is_running = await self._fetch("is_running", claimed.id, claimed.claim_token)
        return status == "committed" and not is_running

    async def note_hook_failed(
        self, task: ClaimedTask, error: str, connection: asyncpg.Connection | None = None
    ) -> None:
        """Record that a failure hook failed for good: in the caller's transaction, if there is one."""
        detail = json.dumps({"error": error})
        arguments = (task.id, task.claim_token, detail)
        if connection is None:
            await self._fetch("note_hook_failed", *arguments)
        else:
            await self._execute_on(connection, "note_hook_failed", *arguments)

    async def keep_record(
        self, task: ClaimedTask, keep: timedelta | None, connection: asyncpg.Connection
    ) -> None:
        """Keep a task's record for its failure task, in the transaction that is about to end it."""
        await self._execute_on(connection, "keep_record", task.id, task.claim_token, keep)

    async def enqueue_failure_task(
        self, task: ClaimedTask, name: str, payload: str, metadata: str | None, connection: asyncpg.Connection
    ) -> None:
        """Enqueue a task's failure task in the transaction that ends it, unless it is one itself."""
        arguments = (task.id, name, payload)
        failure_task = query("enqueue_failure_task", self.schema)
        task_id = await limited(connection, connection.fetchval(failure_task, *arguments), HOT)
        if metadata is not None and task_id is not None:
            await self._execute_on(connection, "set_metadata", task_id, metadata)

    async def _execute_on(self, connection: asyncpg.Connection, statement: str, *arguments: Any) -> None:
        await limited(connection, connection.execute(query(statement, self.schema), *arguments), HOT)

    async def note_progress(self, task: ClaimedTask, progress: str) -> bool:
        """Write down how far an execution is (JSON); False if its claim is stale."""
        async with self._progress:  # however many handlers speak at once, claim and finalize find their turn
            return bool(await self._fetch("note_progress", task.id, task.claim_token, progress))

    async def ensure_partitions(self, batch: Sequence[Ended] = ()) -> None:
        """Make the partitions of finished tasks for the days ahead, and for those that a batch needs."""
        keeps = [ended.keep for ended in batch]
        ids = [ended.task_id for ended in batch]
        await self._fetch("ensure_partitions", ids, keeps)

    async def due_partitions(self) -> list[DuePartition]:
        """The tables of finished tasks whose day has come, in the order in which they can be dropped."""
        return [DuePartition(*row) for row in await self._fetch("due_partitions")]

    async def yield_detach(self, statement: str, *, is_up: bool) -> list[int]:
        """Cancel a statement that detaches where somebody waits for it, or its time is up.

        Returns the server's processes that were in its way.
        """
        rows = await self._fetch("yield_detach", statement, is_up)
        return [pid for row in rows for pid in row[0]]

    async def keep_failed(self, limit: int = 1000) -> int:
        """Keep records that failure tasks still need from being dropped; returns how many."""
        return int(await self._value("keep_failed", limit))

    async def forget_tags(self, limit: int = 1000) -> int:
        """Free unique tags of tasks whose record is forgotten; returns how many."""
        return int(await self._value("forget_tags", limit))

    async def forget_events(self, limit: int = 1000) -> int:
        """Go on looking for events of tasks that nobody knows any more, and delete them.

        Returns how many were looked at: fewer than `limit` once it is through for today.
        """
        return int(await self._value("forget_events", limit) or 0)

    async def promote_due(self, limit: int = 1000) -> tuple[int, float | None]:
        """Make due tasks claimable; returns how many, and in how many seconds the next one is due."""
        [(promoted, next_in)] = await self._fetch("promote_due", limit)
        return promoted, None if next_in is None else max(next_in.total_seconds(), 0.0)

    async def promote_serial(self, keys: Sequence[str] | None = None) -> int:
        """Let the first of each serial key's line go (all keys: None); returns how many went."""
        return int(await self._value("promote_serial", keys))

    async def awaited(self, after: int, limit: int) -> list[tuple[int, bool]]:
        """Tasks that others depend on, by id from `after` on, and whether each has ended."""
        return [(row[0], row[1]) for row in await self._fetch("awaited", after, limit)]

    async def settle_dependencies(self, task_ids: Sequence[int]) -> tuple[int, list[int]]:
        """Let go, or cancel, what waits for those of some tasks that have ended: a part, where they are many.

        Returns how many were seen to, and the ended tasks for which others still wait. These are at hand for
        the next call, unless none was seen to: then somebody keeps them locked.
        """
        [(settled, unsettled)] = await self._fetch("settle_dependencies", task_ids)
        return settled, unsettled

    async def expire(self, limit: int = 1000) -> bool:
        """End tasks past their deadline; returns whether there are more."""
        [(found, expired)] = await self._fetch("expire", limit)
        return bool(expired < found or found == limit)

    async def recover(self, limit: int = 1000, *, judge: bool = True) -> list[asyncpg.Record]:
        """Put back the tasks of workers that aren't live: rows of id, name, holder, losses.

        Without `judge`, nobody is declared lost for being silent.
        """
        return await self._fetch("recover", limit, judge)

    async def declare_lost(self, worker_ids: Sequence[UUID], because: str) -> list[UUID]:
        """End the claims of workers whose death was seen; returns those that weren't stopped or lost before.

        The next `recover` puts back what they held.
        """
        return [row[0] for row in await self._fetch("declare_lost", worker_ids, because)]

    async def held_by(self, worker_ids: Sequence[UUID]) -> dict[UUID, int]:
        """How many tasks each of these workers holds; who holds none is left out."""
        return {row[0]: row[1] for row in await self._fetch("held_by", worker_ids)}

    async def namesakes(self, name: UUID) -> list[Namesake]:
        """The workers of a name (worker.id) that neither stopped nor are known to be lost."""
        return [Namesake(*row) for row in await self._fetch("namesakes", name)]

    async def find_workers(self, name: UUID) -> list[Namesake]:
        """Workers that neither stopped nor are known to be lost, by identity or by worker.id."""
        return [Namesake(*row) for row in await self._fetch("find_workers", name)]

    async def workers_of(self, process: UUID) -> list[UUID]:
        """The identities of a process that didn't say goodbye."""
        return [row[0] for row in await self._fetch("workers_of", process)]

    async def wake_unknown(self, names: Sequence[str], limit: int = 1000) -> int:
        """Make tasks due that waited for somebody to know these names; returns how many."""
        return int(await self._value("wake_unknown", names, limit))

    async def register_worker(self, worker: WorkerRow, config: UUID | None = None) -> bool:
        """Write down a new worker, its lease and the identity of the configuration that it applies.

        False: a live worker of another process has its name, and nothing was written.
        """
        written = await self._fetch(
            "register_worker",
            worker.id,
            worker.name,
            worker.process,
            worker.place,
            worker.hostname,
            worker.pid,
            worker.version,
            worker.labels,
            worker.names,
            worker.concurrency,
            worker.lease,
            config,
            worker.max_strict_percentage,
        )
        return bool(written)

    async def renew_lease(
        self,
        worker_id: UUID,
        lease: timedelta,
        *,
        running: int,
        config: UUID | None = None,
        stall: str | None = None,
        finished: int = 0,
        failed: int = 0,
        worker: WorkerRow | None = None,
    ) -> News | None:
        """Renew a lease; returns what is new for this worker, or None if the lease was lost.

        `config` is the identity of the configuration that it applies; `stall` says what blocks the worker's
        event loop (JSON); `finished` and `failed` count its executions; `worker` is what it says of itself by
        now.
        """
        said = () if worker is None else (worker.labels, worker.concurrency, worker.max_strict_percentage)
        rows = await self._fetch(
            "renew_lease", worker_id, lease, running, config, stall, finished, failed, *(said or (None,) * 3)
        )
        return News(*rows[0]) if rows else None

    async def set_idle(self, worker_id: UUID, idle: bool) -> None:
        """Say whether a worker waits for work."""
        await self._fetch("set_idle", worker_id, idle)

    async def stop_worker(self, worker_id: UUID) -> None:
        """Say that a worker is gone."""
        await self._fetch("stop_worker", worker_id)

    async def forget_workers(self) -> None:
        """Forget workers that have long been gone."""
        await self._fetch("forget_workers")

    async def forget_commands(self) -> None:
        """Forget commands that nobody asks about any more."""
        await self._fetch("forget_commands")

    async def register_definitions(self, rows: Sequence[DefinitionRow]) -> None:
        """Write down what this worker knows, so that SQL and Python enqueue alike."""
        columns = [[getattr(row, field) for row in rows] for field in DefinitionRow.__slots__]
        await self._fetch("register_definitions", *columns)

    async def note_stale(self, batch: Sequence[Ended]) -> set[int]:
        """Of a batch that `finalize` found gone: record whose claims were lost, and return those tasks' ids.

        The others were written before, by a call whose answer got lost.
        """
        columns = _columns(batch)[:3]
        return {row[0] for row in await self._fetch("note_stale", *columns)}


def _written(rows: list[asyncpg.Record]) -> dict[int, str]:
    """Task id → the id of the transaction that wrote it."""
    return {row[0]: row[1] for row in rows}


def _columns(batch: Sequence[Ended]) -> list[list[Any]]:
    transitions = [ended.transition for ended in batch]
    return [
        [ended.task_id for ended in batch],
        [ended.claim_token for ended in batch],
        [transition.status for transition in transitions],
        _sparse([transition.delay for transition in transitions]),
        _sparse([transition.result for transition in transitions]),
        _sparse([transition.error for transition in transitions]),
        _sparse([transition.reason for transition in transitions]),
        _sparse([None if transition.attempt_spent else False for transition in transitions]),
        _sparse([transition.failed_execution or None for transition in transitions]),
        _sparse([transition.event for transition in transitions]),
        _sparse([ended.keep for ended in batch]),
    ]


def _sparse(column: list[Any]) -> list[Any]:
    """A column for `unnest`, which fills up with NULL what is missing: sending only NULLs costs time too."""
    return [] if column.count(None) == len(column) else column
