"""The asyncio tasks that handlers start: known by a mark in their context, ended with the attempt.

A handler's own task isn't made by the factory here, so what a handler doesn't use costs it nothing.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, cast

from typing_extensions import override

from asynctaskd.telemetry.events import emit
from asynctaskd.telemetry.speaking import current_speaker

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import ContextVar

    from asynctaskd.daemon.execution import Execution

    Make = Callable[..., asyncio.Task[Any]]

# What a handler left behind may be about to end: a driver that puts a connection back, say.
_MOMENT = 0.1

# How long a cancelled leftover is waited for; the handler itself has ended, and what it came to stands.
_LAST_WORDS = 1.0

_MOST_NAMES = 10

# The log asks it too, and knows of an execution no more than what it says of itself.
current_execution = cast("ContextVar[Execution]", current_speaker)
"""To which execution the tasks belong that are created in this context."""


def adopt_tasks(loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    """Let executions know the tasks that their handlers create; returns a function that undoes it."""
    factory = loop.get_task_factory()
    if not isinstance(factory, _Factory):
        factory = _Factory(factory)
        loop.set_task_factory(factory)
    factory.users += 1
    return lambda: _undo(loop, factory)


def _undo(loop: asyncio.AbstractEventLoop, factory: _Factory) -> None:
    factory.users -= 1
    # Where somebody put a factory of their own on top, ours stays below it: it does no harm.
    if not factory.users and loop.get_task_factory() is factory:
        loop.set_task_factory(factory.before)


async def end_offspring(execution: Execution) -> None:
    """Cancel what a handler left running, and say so; waits for it only for a moment."""
    offspring = execution.offspring
    try:
        if execution.interruption is None:
            await asyncio.wait(set(offspring), timeout=_MOMENT)
    finally:
        left = set(offspring)
        if left:
            _cancel(execution, left)
    if left:
        await asyncio.wait(left, timeout=_LAST_WORDS)


def _cancel(execution: Execution, left: set[asyncio.Task[Any]]) -> None:
    for task in left:
        task.cancel()
    names = sorted(f"{task.get_name()} ({_origin(task)})" for task in left)
    emit(
        "handler.leaked_tasks",
        **execution.facts,
        count=len(names),
        names=names[:_MOST_NAMES],
    )


def _origin(task: asyncio.Task[Any]) -> str:
    return str(getattr(task.get_coro(), "__qualname__", "?"))


class _Factory:
    """A task factory on top of the one there was."""

    def __init__(self, before: Any) -> None:
        self.before = before
        self.users = 0
        self._make: Make = before or _make

    def __call__(self, loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        context = options.get("context")
        execution = current_execution.get(None) if context is None else context.get(current_execution)
        if execution is None:
            return self._make(loop, coro, **options)
        task = self._make(loop, _Guarded(coro) if inspect.iscoroutine(coro) else coro, **options)
        execution.adopt(task)
        return task


def _make(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    return asyncio.Task(coro, loop=loop, **options)


class _Guarded(Coroutine[Any, Any, Any]):
    """A coroutine whose SystemExit or KeyboardInterrupt ends its task, and not the event loop.

    No coroutine function: cancelled before its first step, that would never have awaited the other.
    """

    __slots__ = ("_inner",)

    def __init__(self, inner: Coroutine[Any, Any, Any]) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @override
    def send(self, value: Any) -> Any:
        try:
            return self._inner.send(value)
        except (SystemExit, KeyboardInterrupt) as error:
            raise _as_failure(error) from error

    @override
    def throw(self, *raised: Any) -> Any:
        try:
            return self._inner.throw(*raised)
        except (SystemExit, KeyboardInterrupt) as error:
            raise _as_failure(error) from error

    @override
    def close(self) -> None:
        self._inner.close()

    @override
    def __await__(self) -> Any:
        return self._inner.__await__()


def _as_failure(error: BaseException) -> RuntimeError:
    return RuntimeError(f"a task that the handler started raised {error!r}")
