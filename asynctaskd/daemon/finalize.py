"""Finalize: write all outcomes that have gathered since the last round trip.

The completions have a statement of their own, and so have all other ends.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from asynctaskd.daemon.loops import OUTAGE, Backoff
from asynctaskd.errors import InvalidInputError, InvalidPayloadError
from asynctaskd.postgres.driver import RowsLockedError, StatementRefusedError
from asynctaskd.scheduling.transitions import decide
from asynctaskd.task import Completed, EventKind, Failed, TaskStatus, Transition
from asynctaskd.telemetry.events import emit, is_watched

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from datetime import timedelta
    from typing import Any

    from asynctaskd.daemon.audience import Audience
    from asynctaskd.daemon.execution import Execution
    from asynctaskd.daemon.hooks import FailureHooks
    from asynctaskd.daemon.measures import Measures
    from asynctaskd.daemon.slots import Slots
    from asynctaskd.postgres.orders import OrderStore
    from asynctaskd.postgres.records import Ended
    from asynctaskd.postgres.store import Store
    from asynctaskd.task import Outcome

Gathered = list[tuple["Execution", Transition]]

_DONE = Transition(TaskStatus.COMPLETED)
_UNSTORABLE = Transition(
    TaskStatus.FAILED,
    error="the database refused what was to be written",
    reason="error",
    failed_execution=True,
    event=EventKind.FAILED,
)


class Finalizer:
    """Takes outcomes, writes transitions, and lets go of the executions when they are written."""

    def __init__(
        self,
        store: Store,
        orders: OrderStore,
        slots: Slots,
        hooks: FailureHooks,
        audience: Audience,
        measures: Measures,
        *,
        promoted: Callable[[], None],
        expect: Callable[[timedelta], None],
        has_dependants: Callable[[], bool],
        leave: Callable[[Iterable[int]], None],
    ) -> None:
        self._store = store
        self._orders = orders
        self._slots = slots
        self._hooks = hooks
        self._audience = audience
        self._measures = measures
        self._promoted = promoted
        self._expect = expect
        self._has_dependants = has_dependants
        self._leave = leave
        self._gathered: Gathered = []
        self._something = asyncio.Event()
        self._apart: set[asyncio.Task[None]] = set()  # with a hook, or behind somebody's lock

    def put(self, execution: Execution, outcome: Outcome) -> None:
        """Take what an execution came to."""
        transition = _decide(execution, outcome)
        if execution.stored:
            self._note_after_commit(execution, outcome)
            transition = _DONE
        elif self._hooks.concern(execution, transition):
            name = f"failure hook of {execution.task.name}"
            self._go_on_apart(self._write_with_hooks(execution, transition), name)
            return
        execution.decided = transition
        self._gathered.append((execution, transition))
        self._something.set()

    async def run(self) -> None:
        """Write what gathers until cancelled."""
        while True:
            await self._something.wait()
            self._something.clear()
            batch, self._gathered = self._gathered, []
            await self._finish(batch)

    async def close(self, limit: float) -> None:
        """Give up what is written apart; waits, once, at most `limit` seconds for that to end."""
        apart, self._apart = self._apart, set()
        for writing in apart:
            writing.cancel()
        if apart:
            await asyncio.wait(apart, timeout=limit)

    def _go_on_apart(self, writing: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(writing, name=name)
        self._apart.add(task)
        task.add_done_callback(self._forget)

    async def _finish(self, batch: Gathered, *, apart: bool = False) -> None:
        stale: set[int] = set()
        locked: set[int] = set()
        for part in _parts([pair for pair in batch if not pair[0].stored]):
            more_stale, more_locked = await self._write(part, waits=apart)
            stale |= more_stale
            locked |= more_locked
        if locked:
            for pair in batch:
                if pair[0].task.id in locked:
                    self._go_on_apart(self._finish([pair], apart=True), "finalize behind a lock")
            batch = [pair for pair in batch if pair[0].task.id not in locked]
        self._pass_on(batch, stale)
        await self._set_others_going(batch)
        self._slots.let_go([execution for execution, _ in batch])

    async def _write(self, batch: Gathered, *, waits: bool = True) -> tuple[set[int], set[int]]:
        """Write until it is known to be written; returns the ids whose claims were stale.

        The second set are ids that were not written: somebody keeps their rows locked, and not the others'.
        The answer may get lost after the commit. Saying it again changes nothing then: the claim is spent.
        """
        ended = [execution.ended(transition) for execution, transition in batch]
        locked: set[int] = set()
        backoff = Backoff("finalize")
        while True:
            try:
                written = await self._store.finalize(ended)
                backoff.reset()
                gone = [one for one in ended if one.task_id not in written]
                return await self._store.note_stale(gone) if gone else set(), locked
            except (StatementRefusedError, InvalidPayloadError) as error:
                free_ones = [pair for pair in batch if pair[0].task.id not in locked]
                return await self._write_one_by_one(free_ones, error), locked
            except OUTAGE as error:
                await backoff.wait(error)
                if isinstance(error, RowsLockedError) and not (len(ended) == 1 and waits):
                    free = await self._unlocked(ended)
                    if not free and not waits:
                        return set(), locked | {one.task_id for one in ended}
                    if free:
                        locked |= {one.task_id for one in ended} - free
                        ended = [one for one in ended if one.task_id in free]

    async def _unlocked(self, ended: list[Ended]) -> set[int]:
        try:
            return await self._store.unlocked([one.task_id for one in ended])
        except OUTAGE:
            return set()

    async def _write_one_by_one(self, batch: Gathered, error: Exception) -> set[int]:
        """The database refused a batch: find the one it means, and let that one fail without its result."""
        if len(batch) > 1:
            parts = [await self._write([one]) for one in batch]
            return set().union(*(stale for stale, _ in parts))
        [(execution, transition)] = batch
        if transition is _UNSTORABLE:
            raise error
        failed = _UNSTORABLE
        if transition.result is not None:
            why = f"the database can't store its result: {error}"
            failed = _decide(execution, Failed(why, reason="invalid_result"))
        stale, _ = await self._write([(execution, failed)])
        return stale

    async def _set_others_going(self, batch: Gathered) -> None:
        """The next of their serial keys, and who depends on them."""
        with suppress(*OUTAGE):  # the poll will find them
            await self._promote_keys(batch)
            await self._settle_dependencies(batch)
            if any(execution.asked_for is not None for execution, _ in batch):
                await self._orders.settle()

    async def _promote_keys(self, batch: Gathered) -> None:
        keys = {execution.task.serial_key for execution, _ in batch if execution.task.serial_key is not None}
        if keys and await self._store.promote_serial(sorted(keys)):
            self._promoted()

    async def _settle_dependencies(self, batch: Gathered) -> None:
        if not self._has_dependants():
            return
        if ended := [execution.task.id for execution, transition in batch if transition.status.is_terminal]:
            settled, unsettled = await self._store.settle_dependencies(ended)
            self._promoted()
            if settled and unsettled:  # more than one statement's worth: other outcomes wait to be written
                self._leave(unsettled)

    async def _write_with_hooks(self, execution: Execution, transition: Transition) -> None:
        if execution.span is not None:
            execution.span.resume()
        stale = await self._hooks.finalize(execution, transition)
        self._pass_on([(execution, transition)], {execution.task.id} if stale else set())
        await self._set_others_going([(execution, transition)])
        self._slots.let_go([execution])

    def _forget(self, writing: asyncio.Task[None]) -> None:
        self._apart.discard(writing)
        if not writing.cancelled() and writing.exception() is not None:
            # The task stays running and keeps its slot: its lease ends with this worker, and it runs again.
            emit("loop.crashed", loop="finalize", error=repr(writing.exception()))

    def _pass_on(self, batch: Gathered, stale: set[int]) -> None:
        completions_are_told = is_watched("task.completed")
        finished, failed = len(batch), 0
        for execution, transition in batch:
            is_stale = execution.task.id in stale
            if transition.status is not TaskStatus.COMPLETED or is_stale:
                has_failed = transition.failed_execution and not is_stale
                failed += has_failed
                finished -= not has_failed  # given back, put off or somebody else's by now
                _tell(execution, transition, stale=is_stale)
            elif completions_are_told:
                _tell(execution, transition, stale=False)
            if transition.delay:
                self._expect(transition.delay)
            elif not transition.status.is_terminal:
                self._promoted()
        self._slots.count(finished, failed)
        self._audience.ended(batch, stale)
        self._measures.ended(batch, stale)

    @staticmethod
    def _note_after_commit(execution: Execution, outcome: Outcome) -> None:
        if isinstance(outcome, Failed):
            outcome = replace(outcome, error=execution.written_error(outcome.error) or "")
        if not isinstance(outcome, Completed):
            emit("task.after_commit", **execution.facts, outcome=outcome)


def _parts(batch: Gathered) -> list[Gathered]:
    """What the store writes in one statement each, so that an error of one says nothing about the other."""
    plain = [pair for pair in batch if _is_plain(*pair)]
    others = [pair for pair in batch if not _is_plain(*pair)]
    return [part for part in (plain, others) if part]


def _is_plain(execution: Execution, transition: Transition) -> bool:
    return transition.status is TaskStatus.COMPLETED and execution.task.unique_tag is None


def _decide(execution: Execution, outcome: Outcome) -> Transition:
    if isinstance(outcome, Completed):
        return _DONE if outcome.result is None else Transition(TaskStatus.COMPLETED, result=outcome.result)
    try:
        policy = execution.policy
    except InvalidInputError as error:  # written by SQL, and wrong in a way that only shows here
        return Transition(
            TaskStatus.FAILED, error=str(error), reason="error", failed_execution=True, event=EventKind.FAILED
        )
    return decide(outcome, execution.task, policy, execution.now(), random.random)


def _tell(execution: Execution, transition: Transition, *, stale: bool) -> None:
    kind = EventKind.STALE_RESULT if stale else transition.event or transition.status
    if is_watched(f"task.{kind}"):
        emit(
            f"task.{kind}",
            **execution.facts,
            error=execution.written_error(transition.error),
            reason=transition.reason,
            delay=transition.delay,
        )
