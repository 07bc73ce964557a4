"""Failure hooks: user code in the transaction that writes a final failure, inside a savepoint."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from asynctaskd.daemon.failures import failure_of
from asynctaskd.daemon.loops import OUTAGE, Backoff
from asynctaskd.daemon.stalls import stack_of_task
from asynctaskd.definitions.text import describe_error
from asynctaskd.errors import InvalidPayloadError, LeaseLostError
from asynctaskd.postgres.driver import translated
from asynctaskd.task import TaskStatus
from asynctaskd.telemetry.events import emit
from asynctaskd.telemetry.tracing import current_context, with_context

if TYPE_CHECKING:
    import asyncpg

    from asynctaskd.daemon.execution import Execution
    from asynctaskd.daemon.transactions import Transactions
    from asynctaskd.definitions.registry import Registry
    from asynctaskd.postgres.store import Store
    from asynctaskd.task import Transition

_TRIES = 3
_TIMEOUT = 10.0
_STUCK_AFTER = 15.0
_FIRST_PAUSE = 0.2
_LOST_ITS_WORKER = "its worker was lost while it ran"


class HookFailedError(Exception):
    """A failure hook raised or took too long; its savepoint was rolled back."""


class FailureHooks:
    """Finalizes failures that have a hook, one by one."""

    def __init__(self, app: Registry, transactions: Transactions, store: Store) -> None:
        self._app = app
        self._transactions = transactions
        self._store = store

    def concern(self, execution: Execution, transition: Transition) -> bool:
        """Whether somebody wants to be told of this end."""
        if transition.status is not TaskStatus.FAILED:
            return False
        own = execution.definition is not None and execution.definition.has_failure_hook
        return own or bool(self._app.failure_hooks)

    async def finalize(self, execution: Execution, transition: Transition) -> bool:
        """Write the failure with its hooks, after three failed tries without; True: the claim is stale."""
        backoff = Backoff("finalize")
        errors = [_LOST_ITS_WORKER] * execution.task.hooks_lost
        last: str | None = None  # the error of a hook that may have ended its transaction itself
        while True:
            try:
                return await self._try(execution, transition, errors, last)
            except HookFailedError as error:
                last = execution.written_error(execution.discreet(str(error))) or ""
                errors.append(last)
                self._report(execution, errors)
                await asyncio.sleep(_FIRST_PAUSE * 2 ** len(errors))
            except OUTAGE as error:
                last = None  # a COMMIT may have ended it, whose answer got lost
                await backoff.wait(error)

    async def _try(
        self, execution: Execution, transition: Transition, errors: list[str], last: str | None
    ) -> bool:
        try:
            await self._write(execution, transition, errors)
        except LeaseLostError:
            return await self._find_out(execution, transition, last)
        return False

    async def _find_out(self, execution: Execution, transition: Transition, last: str | None) -> bool:
        """Whether a claim that is gone was lost, or a hook has ended its transaction itself."""
        stale = bool(await self._store.note_stale([execution.ended(transition)]))
        if last is not None and not stale:
            await self._store.note_hook_failed(execution.task, f"it ended its transaction: {last}")
        return stale

    async def _write(self, execution: Execution, transition: Transition, errors: list[str]) -> None:
        try:
            with translated():
                async with self._transactions.ending(execution) as (connection, end):
                    if execution.definition is not None and execution.definition.options.on_failed:
                        await self._store.keep_record(execution.task, execution.keep, connection)
                    await end(transition)
                    if len(errors) < _TRIES:
                        await self._call(execution, transition, connection)
                    else:
                        await self._store.note_hook_failed(execution.task, errors[-1], connection)
        except (HookFailedError, LeaseLostError, *OUTAGE):
            raise
        except Exception as error:  # what the hook wrote was refused at COMMIT: a deferred constraint
            if len(errors) >= _TRIES:
                raise
            raise HookFailedError(describe_error(error)) from error

    async def _call(
        self, execution: Execution, transition: Transition, connection: asyncpg.Connection
    ) -> None:
        # Rolling back to the savepoint leaves the transaction good, whatever the hook did to it.
        stuck = asyncio.get_running_loop().call_later(
            _STUCK_AFTER, self._report_stuck, execution, asyncio.current_task()
        )
        limit = asyncio.timeout(_TIMEOUT)
        try:
            async with limit, connection.transaction():
                await self._tell(execution, transition, connection)
        except BaseException as error:  # SystemExit too is the hook's failure, not the daemon's
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            why = f"it took longer than {_TIMEOUT:g} s" if limit.expired() else describe_error(error)
            raise HookFailedError(why) from error
        finally:
            stuck.cancel()

    async def _tell(
        self, execution: Execution, transition: Transition, connection: asyncpg.Connection
    ) -> None:
        failure = failure_of(execution, transition.error, transition.reason)
        definition = execution.definition
        if definition is not None and definition.failure_hook is not None:
            await definition.failure_hook(_parameters(execution), failure, connection)
        if definition is not None and definition.options.on_failed:
            await self._enqueue_failure_task(execution, definition.options.on_failed, connection)
        for hook in self._app.failure_hooks:
            await hook(failure, connection)

    async def _enqueue_failure_task(
        self, execution: Execution, name: str, connection: asyncpg.Connection
    ) -> None:
        payload = self._app[name].failure_payload(execution.task.id)
        context = with_context(None, current_context())
        await self._store.enqueue_failure_task(execution.task, name, payload, context, connection)

    @staticmethod
    def _report_stuck(execution: Execution, writing: asyncio.Task[Any] | None) -> None:
        emit(
            "handler.stuck",
            **execution.facts,
            why="hook timeout",
            seconds=_STUCK_AFTER - _TIMEOUT,
            traceback=stack_of_task(writing),
        )

    @staticmethod
    def _report(execution: Execution, errors: list[str]) -> None:
        emit("hook.failed", **execution.facts, tries=len(errors), error=errors[-1])


def _parameters(execution: Execution) -> Any:
    try:
        return execution.definition and execution.definition.bind(execution.task.payload)
    except InvalidPayloadError:
        return None
