"""The tasks that an application declares, by name or by what their names begin with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from ssl import SSLContext
from types import MappingProxyType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    ParamSpec,
    Protocol,
    TypeVar,
    Unpack,
    cast,
    overload,
)

from pydantic import BaseModel

from asynctaskd.codecs.codec import Codec
from asynctaskd.definitions import hooks, rules
from asynctaskd.definitions.context import TaskContext
from asynctaskd.definitions.definition import Definition
from asynctaskd.definitions.exposed import Exposed, exposed_name, methods_of
from asynctaskd.definitions.labels import LabelPolicies
from asynctaskd.definitions.options import DeclaredOptions, TaskOptions
from asynctaskd.definitions.remote.command import Command
from asynctaskd.definitions.remote.document import handing_on
from asynctaskd.definitions.remote.services import Services
from asynctaskd.definitions.request import name_of_call
from asynctaskd.definitions.signature import Handler
from asynctaskd.definitions.types import Implementations
from asynctaskd.errors import (
    InvalidDefinitionError,
    InvalidInputError,
    InvalidPayloadError,
    UnknownTaskError,
)
from asynctaskd.scheduling.retry import RetryPolicy

if TYPE_CHECKING:
    from asynctaskd.definitions.remote.http import Secret

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

AnyDefinition = Definition[..., Any]

FailureHook = TypeVar("FailureHook", bound=hooks.AppFailureHook)
ErrorHook = TypeVar("ErrorHook", bound=hooks.ErrorHook)
Layer = TypeVar("Layer", bound=hooks.Middleware)

ANY_SUFFIX = "*"
"""What the names of routes end with: no name of a task has it."""


class TaskDecorator(Protocol):
    """What `@app.task(...)` is: it takes a handler and leaves its context out of `request`'s arguments."""

    @overload
    def __call__(self, handler: Callable[[T, TaskContext], R], /) -> Definition[[T], R]: ...
    @overload
    def __call__(self, handler: Callable[Concatenate[TaskContext, P], R], /) -> Definition[P, R]: ...
    @overload
    def __call__(self, handler: Callable[P, R], /) -> Definition[P, R]: ...


class Registry:
    """What an App knows: tasks, routes, hooks and middleware.

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

    def _of_function(self, function: Handler) -> AnyDefinition | None:
        return next((one for one in self._definitions.values() if one.handler == function), None)

    def _routed(self, name: str) -> AnyDefinition | None:
        return next((route for prefix, route in self._routes.items() if name.startswith(prefix)), None)

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

    def register(
        self, function: Callable[P, R], /, name: str | None = None, **options: Unpack[DeclaredOptions]
    ) -> Definition[P, R]:
        """Declare an ordinary function as a task, by its own name or another, and leave it as it is.

        `app[function].request(2, b=3)` is a request of it. Registered twice it is one task.

        Raises:
            InvalidDefinitionError: like `task`.
        """
        return cast("Definition[P, R]", self._declare(name, function, options))

    def register_type(self, cls: T) -> T:
        """Let parameters of interface types accept a class that implements them; before the tasks that do.

        An interface is an abstract class or a Protocol. In the payload such a value is an object of `type`
        (the class's name) and `value`.

        Raises:
            InvalidDefinitionError: it is no class that can be made from JSON, or another one has its name.
        """
        self.types.register(cls)
        return cls

    def expose(
        self,
        target: Any,
        /,
        name: str | None = None,
        *,
        methods: Iterable[str] | None = None,
        **options: Unpack[DeclaredOptions],
    ) -> Exposed:
        """Let tasks call methods of an object, a class (one instance is made) or a module; all public ones.

        `client.enqueue(target="shop.orders:Orders", method="ship", payload={"order": 7})`, or
        `exposed.ship.request(7)`.

        Args:
            name: what the target is called; `module:Name` unless given.
            methods: those that may be called, instead of all that have no `_` in front.

        Raises:
            InvalidDefinitionError: it can't be made, has no such method, or one can't be a handler.
        """
        called = exposed_name(target, name)
        found = [
            self._declare(name_of_call(called, method), handler, options)
            for method, handler in methods_of(target, methods).items()
        ]
        return Exposed(called, found)

    def http_task(
        self,
        name: str,
        *,
        url: str,
        secret: Secret | None = None,
        hosts: Iterable[str] | None = None,
        verify: str | SSLContext | None = None,
        parameters: type[BaseModel] | None = None,
        **options: Unpack[DeclaredOptions],
    ) -> Definition[[Any], Any]:
        """Declare a task that is posted to a service as JSON; the reply says what becomes of it.

        Args:
            secret: what requests are signed with (see `verify_signature`), or a function that returns it.
            hosts: the hosts that the URL may have, in the place of the App's `http_hosts`.
            verify: a file of certificates to trust, or an SSLContext; by default those of certifi.
            parameters: the model that payloads must fit; by default any JSON object does.

        Raises:
            InvalidDefinitionError: an argument is wrong, the host isn't allowed, or httpx isn't installed.
        """
        endpoint = self.services.endpoint(name, url, secret=secret, hosts=hosts, verify=verify)
        return self._declare(name, handing_on(endpoint.run, endpoint.place, parameters), options)

    def command_task(
        self,
        name: str,
        *,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        parameters: type[BaseModel] | None = None,
        **options: Unpack[DeclaredOptions],
    ) -> Definition[[Any], Any]:
        """Declare a task that a program runs; its exit code and its output say what becomes of it.

        Args:
            command: the program and its arguments; no shell reads them.
            env: what its environment holds beside PATH, LANG, HOME and the task.
            cwd: where it runs; by default where the worker does.
            parameters: the model that payloads must fit; by default any JSON object does.

        Raises:
            InvalidDefinitionError: an argument is wrong.
        """
        run = Command.checked(name, command, env, cwd).run
        return self._declare(name, handing_on(run, f"program {command[0]}", parameters), options)

    def label(
        self,
        name: str,
        *,
        max_running: int | None = None,
        max_run_time: str | timedelta | None = None,
        max_attempts: int | None = None,
        retry: RetryPolicy | str | None = None,
    ) -> None:
        """Declare the policy of a label; before the tasks that carry it.

        Limits are written to the runtime configuration by the next worker that starts, where nothing is said
        of them yet; operators change them there, and what they have set is never overwritten.

        Args:
            max_running: how many of its tasks may run at once in the whole fleet.
            max_run_time: how long one execution of its tasks may take, whatever their own timeout says.
            max_attempts: how often its tasks are run, whatever their own retry policy says.
            retry: the policy of definitions that carry it and declare none; it stays in the App.

        Raises:
            InvalidDefinitionError: a value breaks a rule, the label is declared already, or a task that
                carries it was declared before its retry policy.
        """
        limits = {"limits": max_running, "max_run_times": max_run_time, "max_attempts": max_attempts}
        self.labels.declare(name, limits, retry)
        for definition in self._definitions.values() if retry is not None else ():
            if name in (definition.options.labels or ()):
                raise InvalidDefinitionError(
                    f"declare label {name!r} before task {definition.name!r}, which carries it"
                )

    def route(self, prefix: str, **options: Unpack[DeclaredOptions]) -> TaskDecorator:
        """Declare a function as the handler of every task whose name begins so and has no handler of its own.

        Of several prefixes the longest counts; `""` catches all. `ctx.name` is the name that was enqueued.
        What is enqueued under such a name takes its defaults from these options.

        Raises:
            InvalidDefinitionError: like `task`; or the option `cron` is given, which needs one name.
        """
        name = _checked_prefix(prefix) + ANY_SUFFIX
        if options.get("cron") is not None:
            raise InvalidDefinitionError(f"route {prefix!r}: cron needs a task of one name")

        def declare(handler: Handler) -> Any:
            route = self._add(self._definition(name, handler, options))
            by_length = sorted([*self._routes.items(), (prefix, route)], key=lambda item: -len(item[0]))
            self._routes = dict(by_length)
            return route

        return cast("TaskDecorator", declare)

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
