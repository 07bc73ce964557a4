"""Transactions that user code writes in: ctx.transaction() and failure hooks, on a pool of their own."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

from asynctaskd.errors import DatabaseUnavailableError, InvalidInputError, LeaseLostError
from asynctaskd.postgres.connection import limited
from asynctaskd.postgres.driver import CONNECTION_LOSS, translated
from asynctaskd.postgres.sessions import HOT, LONG
from asynctaskd.task import TaskStatus, Transition

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import asyncpg
    from asyncpg.transaction import Transaction

    from asynctaskd.daemon.execution import Execution
    from asynctaskd.postgres.store import Store

# Whatever the role or the database says: the task's timeout is the limit of what it does between statements.
_ALLOW_IDLING = "SET LOCAL idle_in_transaction_session_timeout = 0"

# Once the end is written, a hook follows at most, and hooks have 10 s. Who says nothing for longer is frozen
# or cut off, and its lock on the row would keep the task from others.
_LIMIT_SILENCE = "SET LOCAL idle_in_transaction_session_timeout = '12s'"


class Transactions:
    """Hands out connections on which a task's end is committed together with what was written."""

    def __init__(
        self, pool: asyncpg.Pool, store: Store, *, progressed: Callable[[Execution, str], None]
    ) -> None:
        self._pool = pool
        self._store = store
        self._progressed = progressed

    @asynccontextmanager
    async def completing(
        self, execution: Execution, result: Callable[[], Any]
    ) -> AsyncIterator[asyncpg.Connection]:
        """A transaction whose commit completes the task with `result()`; once per attempt."""
        if execution.stored or execution.completing:
            raise InvalidInputError(
                "ctx.transaction() completes the task, so it can be used once per attempt"
            )
        assert execution.definition is not None  # noqa: S101  (it has a handler: it is asking)
        execution.completing = True
        in_block = False
        try:
            async with self.ending(execution) as (connection, end):
                in_block = True
                yield connection
                in_block = False
                written = execution.definition.dump_result(result())
                await end(Transition(TaskStatus.COMPLETED, result=written))
        except (*CONNECTION_LOSS, DatabaseUnavailableError):
            # What is raised in the block may be about another server: there the rollback tells.
            execution.was_cut_off |= not in_block
            raise
        finally:
            execution.completing = False

    @asynccontextmanager
    async def ending(self, execution: Execution) -> AsyncIterator[tuple[asyncpg.Connection, Any]]:
        """A transaction and a function that writes a transition in it.

        Raises:
            LeaseLostError: when the function is called and the claim no longer stands; all is rolled back.
        """
        task = execution.task
        written: list[str] = []

        async with self._pool.acquire() as pooled:
            connection = cast("asyncpg.Connection", pooled)  # it behaves like one

            async def end(transition: Transition) -> None:
                if not connection.is_in_transaction():
                    raise InvalidInputError(
                        "the transaction was ended by COMMIT or ROLLBACK within it; leave its block instead"
                    )
                transaction_id = await self._store.finalize_on(connection, execution.ended(transition))
                if transaction_id is None:
                    raise LeaseLostError(f"task {task.id} is no longer this execution's: its lease was lost")
                written.append(transaction_id)
                await limited(connection, connection.execute(_LIMIT_SILENCE), HOT)

            transaction = connection.transaction(isolation="read_committed")
            await self._begin(connection, transaction)
            try:
                yield connection, end
            except BaseException:
                execution.was_cut_off = not await _rolled_back(connection, transaction)
                if execution.was_cut_off:
                    await self._pool.expire_connections()  # the others may have died of the same
                raise
            await self._commit(execution, connection, transaction, written)

    async def _begin(self, connection: asyncpg.Connection, transaction: Transaction) -> None:
        try:
            await limited(connection, transaction.start(), HOT)
            await limited(connection, connection.execute(_ALLOW_IDLING), HOT)
        except (*CONNECTION_LOSS, DatabaseUnavailableError):
            await self._pool.expire_connections()  # the others have probably died of the same
            raise

    async def _commit(
        self,
        execution: Execution,
        connection: asyncpg.Connection,
        transaction: Transaction,
        written: list[str],
    ) -> None:
        try:
            await limited(connection, transaction.commit(), LONG)
        except BaseException as error:
            # The answer to COMMIT may have got lost, or this task been cancelled while waiting for it: ask.
            execution.stored = bool(written) and await self._store.was_committed(written[0], execution.task)
            if not execution.stored or isinstance(error, asyncio.CancelledError):
                raise
        execution.stored = True

    async def note_progress(self, execution: Execution, progress: str) -> None:
        """Write down how far an execution is.

        Raises:
            LeaseLostError: it no longer owns its task.
        """
        if not await self._store.note_progress(execution.task, progress):
            raise LeaseLostError(
                f"task {execution.task.id} is no longer this execution's: its lease was lost"
            )
        self._progressed(execution, progress)


async def _rolled_back(connection: asyncpg.Connection, transaction: Transaction) -> bool:
    """Roll back; False where the connection is lost, and the server does so by itself."""
    with suppress(DatabaseUnavailableError), translated():
        await limited(connection, transaction.rollback(), HOT)
        return True
    return False
