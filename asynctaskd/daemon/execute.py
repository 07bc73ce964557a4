"""Execute: run a claimed task's handler under its timeout, and turn what happens into an Outcome."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from asynctaskd.daemon.caps import capped, longest
from asynctaskd.daemon.context import ExecutionContext
from asynctaskd.daemon.execution import Execution, Interruption
from asynctaskd.daemon.failures import report_error
from asynctaskd.daemon.offspring import adopt_tasks, current_execution, end_offspring
from asynctaskd.daemon.timeouts import Timeouts
from asynctaskd.definitions.hooks import wrapped
from asynctaskd.definitions.text import describe_error
from asynctaskd.durations import format_duration
from asynctaskd.errors import FatalTaskError, InvalidPayloadError, RetryQuietlyError, SnoozeTask
from asynctaskd.task import Completed, Failed, Overdue, Released, Snoozed, Unroutable
from asynctaskd.telemetry.events import emit

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from asynctaskd.client import Client
    from asynctaskd.daemon.commands import Steering
    from asynctaskd.daemon.slots import Slots
    from asynctaskd.daemon.transactions import Transactions
    from asynctaskd.definitions.context import TaskContext
    from asynctaskd.definitions.definition import Definition
    from asynctaskd.definitions.hooks import Proceed
    from asynctaskd.definitions.registry import Registry
    from asynctaskd.task import ClaimedTask, Outcome

# How long a task waits whose transaction lost its connection, for the first time in a row and for the second.
_AFTER_OUTAGE = {"connection_lost": timedelta(seconds=1), "connection_lost_again": timedelta(seconds=10)}

_INTERNAL_ERROR = 70

# As many as worker.concurrency may be.
_MOST_THREADS = 100_000

_COMPLETED = Completed()

FAILED_BY_OPERATOR = "failed_by_operator"

# How many forks this process is away from the one that imported this: cheaper than to ask who one is.
_forks = 0


def _count_fork() -> None:
    global _forks  # noqa: PLW0603  (it is about the process)
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


class Executor:
    """Starts executions; `finish(execution, outcome)` is called once for each, whatever happens to it."""

    def __init__(
        self,
        app: Registry,
        slots: Slots,
        steering: Steering,
        transactions: Transactions,
        client: Client,
        *,
        worker_id: Callable[[], UUID],
        may_begin: Callable[[], bool],
        finish: Callable[[Execution, Outcome], None],
    ) -> None:
        self._app = app
        self._worker_id = worker_id
        self._may_begin = may_begin
        self._slots = slots
        self._steering = steering
        self._transactions = transactions
        self._client = client
        self._finish = finish
        self._home = _forks
        self._loop = asyncio.get_running_loop()
        self._timeouts = Timeouts(slots, over=lambda execution: execution.interrupt(Interruption.TIMEOUT))
        self._disown_tasks = adopt_tasks(self._loop)
        # One for each slot that is taken by such a handler; how many slots there are may change.
        self._threads = ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="asynctaskd-handler")

    def start(self, task: ClaimedTask) -> None:
        """Begin an execution; it takes a slot at once."""
        definition = self._app.get(task.name)
        config = self._steering.config
        execution = Execution(capped(task, definition, config), definition, self._worker_id())
        execution.longest = longest(task, config)
        self._slots.take(execution)
        obstacle = _obstacle(execution)
        if obstacle is not None:
            self._hand_on(execution, obstacle)
            return
        self._timeouts.watch(execution)
        # Not by the loop's task factory: one that starts tasks eagerly would run the handler here and now.
        execution.runner = asyncio.Task(self._run(execution), loop=self._loop, name=task.name)
        execution.runner.add_done_callback(partial(self._end, execution))

    def age(self, seconds: float) -> None:
        """All that runs began so much earlier; what is over its time is told so."""
        for execution in self._slots:
            execution.age(seconds)
        self._timeouts.look()

    def close(self) -> None:
        """Start no more threads; those that run can't be stopped."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._timeouts.close()
        self._disown_tasks()

    def _end(self, execution: Execution, _: asyncio.Task[None]) -> None:
        # Here, not in the runner: a task cancelled before its first step runs none of its body.
        execution.ends_at = inf
        # Its context holds the execution: a cycle that would wait for the collector.
        execution.runner = None
        execution.note_end()
        self._hand_on(execution, execution.outcome or _interrupted(execution, Released()))

    def _hand_on(self, execution: Execution, outcome: Outcome) -> None:
        self._slots.end(execution)
        self._finish(execution, outcome)

    async def _run(self, execution: Execution) -> None:
        if not self._may_begin():  # and told to stop, like all others
            return
        self._end_if_forked()
        raised: BaseException | None = None
        execution.begin_span()
        try:
            outcome = await self._attempt(execution)
        except BaseException as error:  # noqa: BLE001  (SystemExit too is the task's failure, not the daemon's)
            outcome, raised = outcome_of(error), error
        self._end_if_forked()
        outcome = _interrupted(execution, outcome)
        if isinstance(outcome, Failed | Snoozed) and outcome.error is not None:
            outcome = replace(outcome, error=execution.discreet(outcome.error))
        execution.outcome = outcome
        execution.end_span(outcome, raised)
        if isinstance(outcome, Failed) and self._app.error_hooks:
            execution.ends_at = inf
            await report_error(self._app.error_hooks, execution, outcome, raised)
        if execution.offspring:
            execution.ends_at = inf
            await end_offspring(execution)

    async def _attempt(self, execution: Execution) -> Outcome:
        definition = execution.definition
        assert definition is not None  # noqa: S101  (an obstacle otherwise)
        current_execution.set(execution)
        try:
            bound = definition.bind(execution.task.payload)
        except InvalidPayloadError as error:
            return Failed(str(error), reason="invalid_payload", fatal=True)
        middlewares = self._app.middlewares + definition.middlewares
        context = self._context(execution) if definition.wants_context or middlewares else None
        handler = self._handler(execution, definition, bound, context)
        if context is not None and middlewares:
            handler = wrapped(middlewares, bound, context, handler)
        value = await handler()
        if value is None and context is not None:
            value = context.result
        return _COMPLETED if value is None else _completed(definition, value)

    def _handler(
        self,
        execution: Execution,
        definition: Definition[..., Any],
        bound: object,
        context: TaskContext | None,
    ) -> Proceed:
        if definition.is_sync:
            return partial(self._in_thread, execution, definition.call, bound, context)
        return partial(definition.call, bound, context)

    async def _in_thread(self, execution: Execution, call: Callable[..., Any], *arguments: Any) -> Any:
        """Run a synchronous handler. A thread can't be stopped, so a cancelled one is waited for."""
        context = contextvars.copy_context()
        run = partial(context.run, self._in_this_thread, execution, call, *arguments)
        running = asyncio.get_running_loop().run_in_executor(self._threads, run)
        while True:
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                if running.done():
                    return running.result()

    def _context(self, execution: Execution) -> ExecutionContext:
        execution.context = ExecutionContext(execution, self._transactions, self._client)
        return execution.context

    def _in_this_thread(self, execution: Execution, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call; a future can't hold a StopIteration, and whoever waits for it would wait for ever."""
        execution.thread_id = threading.get_ident()
        try:
            return call(*arguments)
        except StopIteration as error:
            raise RuntimeError("the handler raised StopIteration") from error
        finally:
            self._end_if_forked()

    def _end_if_forked(self) -> None:
        """End a child that a handler forked and let come back: tasks and connections are its parent's."""
        if _forks != self._home:
            os.write(2, b"a process that a handler forked came back from it; leave it by os._exit()\n")
            os._exit(_INTERNAL_ERROR)


def _obstacle(execution: Execution) -> Outcome | None:
    """Why the handler isn't even called, if it isn't."""
    task = execution.task
    if execution.definition is None:
        emit("task.unknown_name", **execution.facts)
        return Unroutable()
    if task.reason is not None and task.reason.startswith(FAILED_BY_OPERATOR):
        return failed_by_operator(task.reason.removeprefix(f"{FAILED_BY_OPERATOR}: "))
    if task.reason == "quarantined":
        return quarantined(task)
    if task.deadline is not None and task.claimed_at > task.deadline:
        return Overdue()
    return None


def quarantined(task: ClaimedTask) -> Failed:
    """What an execution comes to whose task has lost too many workers; nothing is run."""
    lost = f"its worker was lost {task.losses - task.hooks_lost} times in a row while it ran"
    return Failed(lost, reason="quarantined", fatal=True)


def failed_by_operator(why: str) -> Failed:
    """What an execution comes to that an operator declares failed."""
    return Failed(why, reason=FAILED_BY_OPERATOR, fatal=True)


def _completed(definition: Definition[..., Any], value: object) -> Outcome:
    try:
        return Completed(definition.dump_result(value))
    except InvalidPayloadError as error:
        return Failed(str(error), reason="invalid_result")


def outcome_of(error: BaseException) -> Outcome:
    """What an execution comes to whose handler raised."""
    signal = _signal_in(error)
    if isinstance(signal, SnoozeTask):
        return Snoozed(signal.delay)
    if isinstance(signal, FatalTaskError):
        return Failed(describe_error(error), reason="terminated", fatal=True)
    return Failed(describe_error(error), quiet=isinstance(signal, RetryQuietlyError))


def _signal_in(error: BaseException) -> BaseException | None:
    """The first of our three signals along `raise … from`."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        if isinstance(current, FatalTaskError | RetryQuietlyError | SnoozeTask):
            return current
        seen.add(id(current))
        current = current.__cause__
    return None


def after_cut_off(task: ClaimedTask, failure: Failed) -> Outcome:
    """What it comes to that a transaction's connection was lost.

    Twice in a row that is forgiven: outages come back. After that, the handler may well bring it about.
    """
    reasons = list(_AFTER_OUTAGE)
    before = reasons.index(task.reason) + 1 if task.reason in reasons else 0
    if before == len(reasons):
        return replace(failure, reason=reasons[-1])
    return Snoozed(_AFTER_OUTAGE[reasons[before]], reasons[before], failure.error)


def _interrupted(execution: Execution, outcome: Outcome) -> Outcome:
    """What an execution comes to that was told to stop, or whose database went away under its transaction."""
    if execution.interruption is None:
        if execution.was_cut_off and isinstance(outcome, Failed) and not outcome.fatal:
            return after_cut_off(execution.task, outcome)
        return outcome
    if execution.interruption is Interruption.TIMEOUT:
        return Failed(f"timed out after {format_duration(execution.timeout)}", reason="timeout")
    if execution.interruption is Interruption.OPERATOR and execution.asked_for is not None:
        # It may have completed, or failed for good, just before.
        came_first = isinstance(outcome, Completed) or (isinstance(outcome, Failed) and outcome.fatal)
        return outcome if came_first else execution.asked_for
    # It may have finished all the same, or been asked to come back.
    return outcome if isinstance(outcome, Completed | Snoozed) else Released()
