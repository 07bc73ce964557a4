"""What users hang on tasks beside their handlers: failure hooks, error hooks and middleware."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from asynctaskd.definitions.context import TaskContext
from asynctaskd.definitions.signature import is_async
from asynctaskd.errors import InvalidDefinitionError
from asynctaskd.task import TaskFailure

FailureHook = Callable[[Any, TaskFailure, Any], Awaitable[None]]
"""async (params, failure, tx: asyncpg.Connection) -> None"""

AppFailureHook = Callable[[TaskFailure, Any], Awaitable[None]]
"""async (failure, tx: asyncpg.Connection) -> None"""

ErrorHook = Callable[[TaskFailure, BaseException], Awaitable[None]]
"""async (failure, error) -> None"""

Proceed = Callable[[], Awaitable[Any]]
"""What goes on with the next middleware, and at last with the handler; gives the result."""

Middleware = Callable[[Any, TaskContext, Proceed], Awaitable[Any]]
"""async (params, ctx, proceed) -> result"""

AnyHook = TypeVar("AnyHook", bound=Callable[..., Awaitable[Any]])


def checked(owner: str, kind: str, hook: AnyHook, parameters: str) -> AnyHook:
    """The hook, if it is `async` and takes these arguments by position.

    Raises:
        InvalidDefinitionError: it isn't, or doesn't.
    """
    wanted = f"{owner}: its {kind} must be async ({parameters})"
    function: object = hook  # whatever its type says
    if not callable(function) or not is_async(hook):
        raise InvalidDefinitionError(f"{wanted}, got {hook!r}")
    try:
        inspect.signature(hook).bind(*parameters.split(", "))
    except TypeError as error:
        raise InvalidDefinitionError(f"{wanted}: {error}") from None
    return hook


def wrapped(
    middleware: Iterable[Middleware], params: object, context: TaskContext, handler: Proceed
) -> Proceed:
    """The handler within its middleware; the first is outermost."""
    for one in reversed(tuple(middleware)):
        handler = partial(one, params, context, handler)
    return handler
