"""A task that was declared: its handler, its parameters and its options."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Generic, ParamSpec, TypeVar

from asynctaskd.codecs.codec import Codec, JsonCodec
from asynctaskd.definitions import hooks
from asynctaskd.definitions.cron import Cron
from asynctaskd.definitions.encoding import Encoding
from asynctaskd.definitions.options import TaskOptions
from asynctaskd.definitions.parameters import Parameters
from asynctaskd.definitions.payload import dump_payload
from asynctaskd.definitions.request import TaskRequest
from asynctaskd.definitions.secrets import secret_paths
from asynctaskd.definitions.signature import Call, Handler, caller, is_async, read_signature
from asynctaskd.definitions.types import Implementations
from asynctaskd.errors import InvalidDefinitionError, InvalidPayloadError
from asynctaskd.scheduling.retry import RetryPolicy
from asynctaskd.task import TaskFailure

P = ParamSpec("P")
R = TypeVar("R")

Hook = TypeVar("Hook", bound=Callable[[Any, TaskFailure, Any], Awaitable[None]])
Layer = TypeVar("Layer", bound=hooks.Middleware)

_SOME_SLOT = datetime(2026, 1, 1, tzinfo=UTC)


class Definition(Generic[P, R]):
    """What `@app.task` makes of a function. Call it like the function itself, in unit tests for one.

    Attributes:
        name: the task's name.
        handler: the function.
        place: where that is, `module.function`.
        options: what was declared.
        retry: the declared policy, or the App's, or None: a failure is final.
        is_sync: whether the handler is no coroutine function and runs in a thread.
        wants_context: whether it takes a TaskContext.
        schema: the JSON schema of its payload.
        schema_hash: SHA-256 of that schema, in hexadecimal.
        failure_hook: what `on_failed` registered, or None.
        middlewares: what `middleware` registered, the first outermost.
        encoding: how its payloads and outcomes are stored, or None: as JSON.
        call: (bound parameters, context) → what the handler returns: a value, or a coroutine of one.
            The context may be None where `wants_context` is False.
    """

    def __init__(
        self,
        name: str,
        handler: Handler,
        options: TaskOptions,
        *,
        default_retry: RetryPolicy | None = None,
        default_codec: Codec | None = None,
        types: Implementations,
    ) -> None:
        """Check the handler.

        Raises:
            InvalidDefinitionError: the handler can't be one; the message names task and parameter.
        """
        signature = read_signature(name, handler)
        functools.update_wrapper(self, handler)
        self.name = name
        self.handler: Handler = handler
        self.place = f"{handler.__module__}.{handler.__qualname__}"
        self.options = options
        self.retry = options.retry or default_retry
        self.is_sync = not is_async(handler)
        self.wants_context = signature.context is not None
        self.failure_hook: hooks.FailureHook | None = None
        self.middlewares: tuple[hooks.Middleware, ...] = ()
        self.call: Call = caller(handler, signature)
        self._arguments = signature.arguments
        self._whole = signature.whole
        self._parameters = Parameters(name, signature, types)
        # The parameters' own methods: the path of every execution and enqueue is one call shorter.
        self.bind: Callable[[str], Any] = self._parameters.bind
        self.stored: Callable[[str], str] = self._parameters.stored
        self.stores_as_given: Callable[[str], bool] = self._parameters.stores_as_given
        self.encoding: Encoding | None = None
        self.go_through(_encoding(name, options.codec or default_codec))
        if options.cron is not None:
            self._check_schedule(options.cron)

    @property
    def schema(self) -> Mapping[str, Any]:
        """The JSON schema of its payload."""
        return self._parameters.schema

    @cached_property
    def secrets(self) -> list[list[str]]:
        """The paths of the fields that nobody is to read in logs and listings."""
        paths = secret_paths(self.schema)
        # By alias and by name: what SQL enqueues may have either.
        return paths and paths + [
            path for path in secret_paths(self._parameters.schema_by_name) if path not in paths
        ]

    @property
    def schema_hash(self) -> str:
        """SHA-256 of the schema, in hexadecimal."""
        return self._parameters.schema_hash

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        """Call the handler itself; nothing is enqueued."""
        result: R = self.handler(*args, **kwargs)
        return result

    def __repr__(self) -> str:
        return f"<Definition {self.name!r} of {self.place}>"

    def request(self, *args: P.args, **kwargs: P.kwargs) -> TaskRequest:
        """A request to run the handler with these arguments, its context left out.

        Raises:
            InvalidPayloadError: wrong number or type of arguments; the message names the parameter.
        """
        try:
            given = self._arguments.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise InvalidPayloadError(f"task {self.name!r}: {error}") from None
        payload = given if self._whole is None else given.get(self._whole.name)
        request = TaskRequest(self.name, self._parameters.tagged(payload))
        self._parameters.dump(request.payload)
        return request

    def for_name(self, name: str) -> Definition[P, R]:
        """This route as the definition of one of its names: what a codec writes for one is no other's."""
        if self.encoding is None:
            return self
        one = copy.copy(self)
        one.go_through(self.encoding.of(name))
        return one

    def go_through(self, encoding: Encoding | None) -> None:
        """Store payloads and outcomes in this way; None: as JSON."""
        if encoding is None:
            return
        self.encoding = encoding
        read, check = self._parameters.bind, self._parameters.stored
        self.bind = lambda stored: read(encoding.decoded(stored))
        self.stored = lambda text: encoding.encoded(check(text))
        self.stores_as_given = lambda document: False

    @property
    def tags_types(self) -> bool:
        """Whether values of some parameters are written with their types beside them."""
        return self._parameters.has_interfaces

    def dump(self, payload: object) -> str:
        """Check a payload (a mapping by alias or name, or a model) and write it as the JSON that is stored.

        That is an object by alias, or with a codec what this makes of it.

        Raises:
            InvalidPayloadError: it doesn't fit the parameters, or can't be stored; holds no values.
        """
        return self.stored(dump_payload(self._parameters.tagged({} if payload is None else payload)))

    def at_slot(self, params: object, slot: datetime) -> object:
        """A schedule's params for one slot, in the schedule's zone.

        Every required `date` or `date-time` without a value gets the slot's; what isn't a mapping stays.
        """
        return self._parameters.at_slot(params, slot)

    def dump_result(self, value: object) -> str | None:
        """Write what the handler returned as JSON text, through the codec; None stays None.

        Raises:
            InvalidPayloadError: it can't be stored: no JSON, over 1 MiB, and so on.
        """
        if value is None:
            return None
        text = dump_payload(value, f"result of task {self.name!r}")
        return text if self.encoding is None else self.encoding.encoded(text, "result")

    def written_error(self, error: str | None) -> str | None:
        """An error text as it is stored and told: through the codec, where that can encode it."""
        if error is None or self.encoding is None:
            return error
        try:
            return self.encoding.encoded_value(error, "error")
        except InvalidPayloadError as problem:
            return f"an error that can't be encoded: {problem}"

    def _check_schedule(self, cron: Cron) -> None:
        try:
            self._parameters.dump(self.at_slot(json.loads(cron.written_params()), _SOME_SLOT))
        except InvalidPayloadError as error:
            raise InvalidDefinitionError(f"task {self.name!r}: its schedule's {error}") from None

    def on_failed(self, hook: Hook) -> Hook:
        """Register what runs when a task fails for good: `async (params, failure, tx) -> None`.

        `params` is what the handler got: its model or dict, a dict of its arguments by name, or None
        where the payload couldn't be read.

        Raises:
            InvalidDefinitionError: the hook isn't async, doesn't take three arguments, or is the second.
        """
        if self.has_failure_hook:
            raise InvalidDefinitionError(f"task {self.name!r} has a failure hook already")
        self.failure_hook = hooks.checked(f"task {self.name!r}", "failure hook", hook, "params, failure, tx")
        return hook

    @property
    def has_failure_hook(self) -> bool:
        """Whether its final failure is told to a hook or to a failure task."""
        return self.failure_hook is not None or bool(self.options.on_failed)

    def middleware(self, layer: Layer) -> Layer:
        """Register what is run around the handler: `async (params, ctx, proceed) -> result`.

        `await proceed()` goes on with the next one and at last the handler. The first that was registered is
        outermost, within those of the App.

        Raises:
            InvalidDefinitionError: it isn't async or doesn't take three arguments.
        """
        self.middlewares += (
            hooks.checked(f"task {self.name!r}", "middleware", layer, "params, ctx, proceed"),
        )
        return layer

    def failure_payload(self, task_id: int) -> str:
        """Its payload as a failure task, as JSON text: the failed task's id as `taskID` or `task_id`.

        Raises:
            InvalidPayloadError: it takes neither, or needs more than that.
        """
        properties = self.schema.get("properties", {})
        return self.dump({"task_id" if "task_id" in properties else "taskID": task_id})


def _encoding(task: str, codec: Codec | None) -> Encoding | None:
    """JSON is what is stored anyway; so a definition can do without its App's codec."""
    return None if codec is None or isinstance(codec, JsonCodec) else Encoding(task, codec)
