"""An execution: one attempt at a task, from its claim until what became of it is written."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import datetime, timedelta
from enum import Enum
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING, Any

from asynctaskd.daemon.caps import timeout_of
from asynctaskd.daemon.stalls import stack_of, stack_of_task
from asynctaskd.definitions.secrets import without
from asynctaskd.postgres.records import Ended
from asynctaskd.scheduling.retry import NO_RETRY, RetryPolicy
from asynctaskd.task import Failed
from asynctaskd.telemetry.events import emit
from asynctaskd.telemetry.tracing import begin_processing, error_type

if TYPE_CHECKING:
    from uuid import UUID

    from asynctaskd.daemon.context import ExecutionContext
    from asynctaskd.definitions.definition import Definition
    from asynctaskd.task import ClaimedTask, Outcome, Transition
    from asynctaskd.telemetry.spans import ProcessSpan

# How long a handler may go on after it was told to stop before it is named.
_STUCK_AFTER = 5.0


class Interruption(Enum):
    """Why an execution was told to stop."""

    TIMEOUT = "timeout"
    SHUTDOWN = "shutdown"
    LEASE_LOST = "lease_lost"
    OPERATOR = "operator"


class Execution:
    """One attempt at a task. Owned by its runner, except for `interruption`, which whoever stops it sets.

    What most attempts never need is a default of the class: there are tens of thousands of them a second.
    """

    interruption: Interruption | None = None
    asked_for: Outcome | None = None
    """What an operator wants it to come to."""
    outcome: Outcome | None = None
    runner: asyncio.Task[None] | None = None
    context: ExecutionContext | None = None
    offspring: set[asyncio.Task[Any]] | tuple[()] = ()
    """Running tasks that its handler started."""
    longest: timedelta | None = None
    """How long it may take, however much time its handler asks for."""
    thread_id: int | None = None
    """Where a synchronous handler runs."""
    was_cut_off = False
    """ctx.transaction() lost its connection."""
    span: ProcessSpan | None = None
    """What traces it."""
    took: float | None = None
    """For how many seconds it ran; None before its end, and where it never began."""
    completing = False
    """ctx.transaction() is open."""
    decided: Transition | None = None
    """What is being written of it, where no hook goes with that."""
    stored = False
    """ctx.transaction() has committed what became of it."""

    def __init__(self, task: ClaimedTask, definition: Definition[..., Any] | None, worker_id: UUID) -> None:
        self.task = task
        self.worker_id = worker_id
        self.definition = definition
        self.timeout = timeout_of(task, definition)
        self._started = monotonic()  # not the loop's clock: a handler in a thread asks too
        self.ends_at = self._started + self.timeout.total_seconds()

    @property
    def keep(self) -> timedelta | None:
        """How long the definition keeps its records."""
        return self.definition.options.keep if self.definition else None

    @property
    def policy(self) -> RetryPolicy:
        """The task's own retry policy, else its definition's."""
        if self.task.retry is not None:
            return _parsed(self.task.retry)
        return (self.definition and self.definition.retry) or NO_RETRY

    def ended(self, transition: Transition) -> Ended:
        """A transition of this attempt, as it is written."""
        task = self.task
        if transition.error is not None and self.definition is not None and self.definition.encoding:
            transition = replace(transition, error=self.written_error(transition.error))
        return Ended(task.id, task.claim_token, transition, self.keep, task.unique_tag is not None)

    def written_error(self, error: str | None) -> str | None:
        """An error text as it is stored and told, through the definition's codec."""
        return error if self.definition is None else self.definition.written_error(error)

    def discreet(self, text: str) -> str:
        """A text that may be stored and told: without the values of fields that are marked as secret."""
        if self.definition is None or not self.definition.secrets:
            return text
        return without(text, self.payload, self.definition.secrets)

    @property
    def payload(self) -> Any:
        """The payload as users see it: as it is stored where its codec can't, None where JSON can't."""
        # What the database takes may be more than Python can read: thousands of levels, or of digits.
        try:
            stored = json.loads(self.task.payload)
        except (ValueError, RecursionError):
            return None
        if self.definition is None or self.definition.encoding is None:
            return stored
        return self.definition.encoding.legible(stored, "payload")

    @property
    def deadline(self) -> datetime:
        """When this attempt times out, by the database's clock."""
        return self.task.claimed_at + self.timeout

    def now(self) -> datetime:
        """The present by the database's clock, as far as it is known here."""
        return self.task.claimed_at + timedelta(seconds=monotonic() - self._started)

    @property
    def facts(self) -> dict[str, Any]:
        """What each line of the log says of it."""
        facts: dict[str, Any] = {
            "task_id": self.task.id,
            "task": self.task.name,
            "attempt": self.task.attempts,
            "worker_id": self.worker_id,
        }
        return facts if self.span is None else facts | {"trace_id": self.span.trace_id}

    def note_end(self) -> None:
        """Its handler has ended."""
        self.took = monotonic() - self._started

    def begin_span(self) -> None:
        """Trace it, in this context, where there is who takes that."""
        task = self.task
        self.span = begin_processing(task.name, task.id, task.attempts, task.traceparent, task.tracestate)

    def end_span(self, outcome: Outcome, raised: BaseException | None) -> None:
        """Its handler has ended, which may have raised."""
        if self.span is not None:
            self.span.end(_error_type(outcome, raised))

    def interrupt(self, why: Interruption) -> None:
        """Tell the handler to stop; the first reason counts."""
        if self.interruption is None and self.runner is not None:
            self.interruption = why
            self.runner.cancel()
            asyncio.get_running_loop().call_later(_STUCK_AFTER, self._report_stuck, _STUCK_AFTER)

    def age(self, seconds: float) -> None:
        """The database's clock was moved on by so much, in a test: this began so much earlier."""
        self._started -= seconds
        self.ends_at -= seconds

    def stop_as(self, asked_for: Outcome) -> None:
        """An operator wants the handler to stop; another reason to stop counts if it came first."""
        self.asked_for = asked_for
        self.interrupt(Interruption.OPERATOR)

    def extend(self, duration: timedelta) -> None:
        """Give the handler more time, as far as its labels allow."""
        if self.longest is not None:
            duration = min(duration, self.longest - self.timeout)
        self.timeout += duration
        self.ends_at += duration.total_seconds()

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Its handler started a task."""
        if isinstance(self.offspring, tuple):
            self.offspring = set()
        self.offspring.add(task)
        task.add_done_callback(self.offspring.discard)

    def _report_stuck(self, seconds: float) -> None:
        if self.runner is None or self.runner.done() or self.interruption is None:
            return
        emit(
            "handler.stuck",
            **self.facts,
            why=self.interruption.value,
            seconds=seconds,
            traceback=self._stack(self.runner),
        )
        asyncio.get_running_loop().call_later(seconds, self._report_stuck, 2 * seconds)

    def _stack(self, runner: asyncio.Task[None]) -> str:
        return stack_of_task(runner) if self.thread_id is None else stack_of(self.thread_id)


def _error_type(outcome: Outcome, raised: BaseException | None) -> str | None:
    """What kind of failure it is: by what the handler raised, else by its reason."""
    if not isinstance(outcome, Failed):
        return None
    return outcome.reason if raised is None or outcome.reason == "timeout" else error_type(raised)


@lru_cache(maxsize=1024)
def _parsed(spec: str) -> RetryPolicy:
    return RetryPolicy.parse(spec)
