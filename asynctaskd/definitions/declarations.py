"""How an application declares its tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from ssl import SSLContext
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

from asynctaskd.definitions.context import TaskContext
from asynctaskd.definitions.definition import Definition
from asynctaskd.definitions.exposed import Exposed, exposed_name, methods_of
from asynctaskd.definitions.options import DeclaredOptions
from asynctaskd.definitions.registry import Registry
from asynctaskd.definitions.remote.command import Command
from asynctaskd.definitions.remote.document import handing_on
from asynctaskd.definitions.request import name_of_call
from asynctaskd.errors import InvalidDefinitionError
from asynctaskd.scheduling.retry import RetryPolicy

if TYPE_CHECKING:
    from asynctaskd.definitions.remote.http import Secret

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class TaskDecorator(Protocol):
    """What `@app.task(...)` is: it takes a handler and leaves its context out of `request`'s arguments."""

    @overload
    def __call__(self, handler: Callable[[T, TaskContext], R], /) -> Definition[[T], R]: ...
    @overload
    def __call__(self, handler: Callable[Concatenate[TaskContext, P], R], /) -> Definition[P, R]: ...
    @overload
    def __call__(self, handler: Callable[P, R], /) -> Definition[P, R]: ...


class Declarations(Registry):
    """Each way to make a task of something: functions, methods, services and programs."""

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
        if options.get("cron") is not None:
            raise InvalidDefinitionError(f"route {prefix!r}: cron needs a task of one name")
        return cast("TaskDecorator", lambda handler: self._declare_route(prefix, handler, options))
