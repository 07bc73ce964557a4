"""The App: every task that an application declares, by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, Unpack, overload

from asynctaskd.definitions import rules
from asynctaskd.definitions.context import TaskContext
from asynctaskd.definitions.definition import Definition, check_hook
from asynctaskd.definitions.options import DeclaredOptions, TaskOptions
from asynctaskd.definitions.signature import Handler
from asynctaskd.errors import InvalidDefinitionError, InvalidInputError, UnknownTaskError
from asynctaskd.scheduling.retry import RetryPolicy
from asynctaskd.task import TaskFailure

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

AnyDefinition = Definition[..., Any]
AppFailureHook = Callable[[TaskFailure, Any], Awaitable[None]]
"""async (failure, tx: asyncpg.Connection) -> None"""

Hook = TypeVar("Hook", bound=AppFailureHook)


class TaskDecorator(Protocol):
    """What `@app.task(...)` is: it takes a handler and leaves its context out of `request`'s arguments."""

    @overload
    def __call__(self, handler: Callable[[T, TaskContext], R], /) -> Definition[[T], R]: ...
    @overload
    def __call__(self, handler: Callable[Concatenate[TaskContext, P], R], /) -> Definition[P, R]: ...
    @overload
    def __call__(self, handler: Callable[P, R], /) -> Definition[P, R]: ...


class App:
    """A registry of tasks.

    Attributes:
        definitions: what was declared, by name, in the order of declaration; read-only.
        retry: the policy of definitions that declare none; None means that a failure is final.
        failure_hooks: what `on_failed` registered, in that order.
    """

    def __init__(self, *, retry: RetryPolicy | str | None = None) -> None:
        """An App without tasks.

        Raises:
            InvalidInputError: the retry policy is malformed.
        """
        self.retry = None if retry is None else rules.retry("retry", retry)
        self.failure_hooks: list[AppFailureHook] = []
        self._definitions: dict[str, AnyDefinition] = {}
        self.definitions: Mapping[str, AnyDefinition] = MappingProxyType(self._definitions)

    def __getitem__(self, name: str) -> AnyDefinition:
        """The definition of that name.

        Raises:
            UnknownTaskError: there is none.
        """
        try:
            return self._definitions[name]
        except KeyError:
            raise UnknownTaskError(self._unknown(name)) from None

    def get(self, name: str) -> AnyDefinition | None:
        """The definition of that name, or None."""
        return self._definitions.get(name)

    @overload
    def task(self, name: Callable[[T, TaskContext], R], /) -> Definition[[T], R]: ...
    @overload
    def task(self, name: Callable[Concatenate[TaskContext, P], R], /) -> Definition[P, R]: ...
    @overload
    def task(self, name: Callable[P, R], /) -> Definition[P, R]: ...
    @overload
    def task(self, name: str | None = None, **options: Unpack[DeclaredOptions]) -> TaskDecorator: ...
    def task(self, name: Any = None, **options: Any) -> Any:
        """Declare a function as the handler of a task: `@app.task`, or `@app.task("name", timeout="30s")`.

        Without a name it is the function's own. The handler takes one pydantic model, or typed arguments
        (the payload is then an object of them by name), or `payload: dict`; and a TaskContext if it wants.
        A synchronous function runs in a thread.

        Raises:
            InvalidDefinitionError: name, option or signature is wrong, or another function has the name.
        """
        if name is None or isinstance(name, str):
            return lambda handler: self._declare(name, handler, options)
        return self._declare(None, name, options)

    def on_failed(self, hook: Hook) -> Hook:
        """Register what sees every task's final failure: `async (failure, tx) -> None`.

        Raises:
            InvalidDefinitionError: the hook isn't async or doesn't take two arguments.
        """
        check_hook("App", hook, "failure, tx")
        self.failure_hooks.append(hook)
        return hook

    def _declare(self, name: str | None, handler: Handler, options: Mapping[str, object]) -> AnyDefinition:
        name = _checked_name(name, handler)
        declared = _checked_options(name, options)
        return self._add(Definition(name, handler, declared, default_retry=self.retry))

    def _add(self, definition: AnyDefinition) -> AnyDefinition:
        first = self._definitions.setdefault(definition.name, definition)
        if first.handler != definition.handler:
            raise InvalidDefinitionError(
                f"task {definition.name!r} has two functions: {first.place} and {definition.place}"
            )
        if first.options != definition.options:
            raise InvalidDefinitionError(f"task {definition.name!r} is declared twice, with other options")
        return first

    def _unknown(self, name: str) -> str:
        nearest = get_close_matches(name, self._definitions, n=1)
        hint = f" Is it {nearest[0]!r}?" if nearest else ""
        return f"no task is named {name!r}.{hint} Did you forget to import the module that declares it?"


def _checked_name(name: str | None, handler: Handler) -> str:
    own_name = getattr(handler, "__name__", type(handler).__name__)
    try:
        return rules.name("task name", own_name if name is None else name)
    except InvalidInputError as error:
        raise InvalidDefinitionError(str(error)) from None


def _checked_options(name: str, options: Mapping[str, object]) -> TaskOptions:
    try:
        return TaskOptions.declared(options)
    except InvalidInputError as error:
        raise InvalidDefinitionError(f"task {name!r}: {error}") from None
