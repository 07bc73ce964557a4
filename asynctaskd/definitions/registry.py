"""What an App knows: its tasks, by name or by what their names begin with, and what hangs on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, TypeVar

from asynctaskd.codecs.codec import Codec
from asynctaskd.definitions import hooks, rules
from asynctaskd.definitions.definition import Definition
from asynctaskd.definitions.labels import LabelPolicies
from asynctaskd.definitions.options import TaskOptions
from asynctaskd.definitions.remote.services import Services
from asynctaskd.definitions.signature import Handler
from asynctaskd.definitions.types import Implementations
from asynctaskd.errors import (
    InvalidDefinitionError,
    InvalidInputError,
    InvalidPayloadError,
    UnknownTaskError,
)
from asynctaskd.scheduling.retry import RetryPolicy

AnyDefinition = Definition[..., Any]

FailureHook = TypeVar("FailureHook", bound=hooks.AppFailureHook)
ErrorHook = TypeVar("ErrorHook", bound=hooks.ErrorHook)
Layer = TypeVar("Layer", bound=hooks.Middleware)

ANY_SUFFIX = "*"
"""What the names of routes end with: no name of a task has it."""


class Registry:
    """Tasks, routes, hooks and middleware, for whoever enqueues or runs them.

    Attributes:
        definitions: what was declared, by name, in the order of declaration; read-only. A route's name is its
            prefix and a `*`.
        retry: the policy of definitions that declare none; None means that a failure is final.
        codec: the one of definitions that declare none; None means JSON.
        failure_hooks: what `on_failed` registered, in that order.
        error_hooks: what `on_error` registered, in that order.
        middlewares: what `middleware` registered, the first outermost.
        types: what `register_type` registered.
        labels: what `label` declared.
        services: what its HTTP tasks are posted to; `http_hosts` are the hosts that they may have.
    """

    def __init__(
        self,
        *,
        retry: RetryPolicy | str | None = None,
        codec: Codec | None = None,
        http_hosts: Iterable[str] | None = None,
    ) -> None:
        """An App without tasks.

        Raises:
            InvalidInputError: the retry policy or a host is malformed, or the codec isn't one.
        """
        self.retry = None if retry is None else rules.retry("retry", retry)
        self.codec = None if codec is None else rules.codec("codec", codec)
        self.services = Services(http_hosts)
        self.failure_hooks: list[hooks.AppFailureHook] = []
        self.error_hooks: list[hooks.ErrorHook] = []
        self.middlewares: tuple[hooks.Middleware, ...] = ()
        self.types = Implementations()
        self.labels = LabelPolicies()
        self._definitions: dict[str, AnyDefinition] = {}
        self._routes: dict[str, AnyDefinition] = {}  # by prefix, the longest first
        self.definitions: Mapping[str, AnyDefinition] = MappingProxyType(self._definitions)

    def __getitem__(self, task: str | Handler) -> AnyDefinition:
        """The definition of that name, or the route with the longest prefix of it; or that of a function.

        Raises:
            UnknownTaskError: there is none.
        """
        definition = self.get(task) if isinstance(task, str) else self._of_function(task)
        if definition is None:
            raise UnknownTaskError(self._unknown(task) if isinstance(task, str) else _unregistered(task))
        return definition

    def get(self, name: str) -> AnyDefinition | None:
        """The definition of that name, or the route with the longest prefix of it, or None."""
        return self._definitions.get(name) or self._routed(name)

    def declared_name(self, name: str) -> str | None:
        """Under which of `definitions` a task of that name falls: its own, a route's, or None."""
        if name in self._definitions:
            return name
        return next((prefix + ANY_SUFFIX for prefix in self._routes if name.startswith(prefix)), None)

    def _of_function(self, function: Handler) -> AnyDefinition | None:
        return next((one for one in self._definitions.values() if one.handler == function), None)

    def _routed(self, name: str) -> AnyDefinition | None:
        found = next((route for prefix, route in self._routes.items() if name.startswith(prefix)), None)
        return None if found is None else found.for_name(name)

    def middleware(self, layer: Layer) -> Layer:
        """Register what is run around every handler: `async (params, ctx, proceed) -> result`.

        `await proceed()` goes on with the next one and at last the handler; what is returned is the result,
        what is raised the task's error. The first that was registered is outermost; a definition's own come
        within these.

        Raises:
            InvalidDefinitionError: it isn't async or doesn't take three arguments.
        """
        self.middlewares += (hooks.checked("App", "middleware", layer, "params, ctx, proceed"),)
        return layer

    def on_failed(self, hook: FailureHook) -> FailureHook:
        """Register what sees every task's final failure: `async (failure, tx) -> None`.

        Raises:
            InvalidDefinitionError: the hook isn't async or doesn't take two arguments.
        """
        self.failure_hooks.append(hooks.checked("App", "failure hook", hook, "failure, tx"))
        return hook

    def on_error(self, hook: ErrorHook) -> ErrorHook:
        """Register what sees every failed attempt, the last one too: `async (failure, error) -> None`.

        It runs before the failure is written, outside any transaction, and has ten seconds. What it raises is
        logged and changes nothing. `error` is the exception, such as a TimeoutError.

        Raises:
            InvalidDefinitionError: the hook isn't async or doesn't take two arguments.
        """
        self.error_hooks.append(hooks.checked("App", "error hook", hook, "failure, error"))
        return hook

    def check(self) -> None:
        """See that every failure task can be enqueued; a worker does so when it starts.

        Raises:
            InvalidDefinitionError: it isn't declared, or has required parameters beside the failed task's id.
        """
        for definition in self._definitions.values():
            if definition.options.on_failed is not None:
                self._check_failure_task(definition.name, definition.options.on_failed)

    def _check_failure_task(self, name: str, failure_task: str) -> None:
        try:
            self[failure_task].failure_payload(1)
        except (UnknownTaskError, InvalidPayloadError) as error:
            raise InvalidDefinitionError(f"task {name!r}: on_failed={failure_task!r}: {error}") from None

    def _declare(self, name: str | None, handler: Handler, options: Mapping[str, object]) -> AnyDefinition:
        return self._add(self._definition(_checked_name(name, handler), handler, options))

    def _declare_route(self, prefix: str, handler: Handler, options: Mapping[str, object]) -> AnyDefinition:
        route = self._add(self._definition(_checked_prefix(prefix) + ANY_SUFFIX, handler, options))
        by_length = sorted([*self._routes.items(), (prefix, route)], key=lambda item: -len(item[0]))
        self._routes = dict(by_length)
        return route

    def _definition(self, name: str, handler: Handler, options: Mapping[str, object]) -> AnyDefinition:
        declared = _checked_options(name, options)
        default = self.labels.retry_of(declared.labels or ()) or self.retry
        return Definition(
            name, handler, declared, default_retry=default, default_codec=self.codec, types=self.types
        )

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


def _checked_prefix(prefix: str) -> str:
    try:
        return prefix and rules.name("a route's prefix", prefix)
    except InvalidInputError as error:
        raise InvalidDefinitionError(str(error)) from None


def _checked_options(name: str, options: Mapping[str, object]) -> TaskOptions:
    try:
        return TaskOptions.declared(options)
    except InvalidInputError as error:
        raise InvalidDefinitionError(f"task {name!r}: {error}") from None


def _unregistered(function: Handler) -> str:
    name = getattr(function, "__qualname__", repr(function))
    return f"{name} is no task of the App; did you forget to register it? app.register({name})"
