"""What an enqueue sends, whoever sends it and by whatever driver: a statement's name and its arguments."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from asynctaskd.definitions.batch import dump_many
from asynctaskd.definitions.definition import Definition
from asynctaskd.definitions.options import NO_OPTIONS
from asynctaskd.definitions.payload import dump_payload
from asynctaskd.definitions.request import TaskRequest
from asynctaskd.definitions.schedule import checked_params, written_options
from asynctaskd.errors import InvalidInputError
from asynctaskd.telemetry.tracing import current_context, with_context

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from asynctaskd.definitions.cron import Cron
    from asynctaskd.definitions.options import RequestOptions, TaskOptions
    from asynctaskd.definitions.registry import Registry


Enqueued: TypeAlias = "str | Definition[..., Any] | TaskRequest | Callable[..., Any] | None"
"""A name, a definition, a request or a registered function; None: its `target` and `method` say it."""


class Enqueue(NamedTuple):
    """An enqueue that was checked as far as it can be before anything is sent.

    `statement` is the name of a file in `queries/`, `arguments` are its parameters in order. The answer is
    one value: the id of the task, or the ids of the tasks.
    """

    statement: str
    arguments: Sequence[Any]
    names: Sequence[str]
    """Those of the tasks that it makes."""

    @classmethod
    def one(
        cls,
        app: Registry | None,
        task: Enqueued,
        payload: object,
        options: RequestOptions,
    ) -> Enqueue:
        """Of one task; with `cron`, of the schedule of its name.

        Raises:
            InvalidInputError: name, payload or an option breaks a rule; with an app also where the name is
                unknown, or the payload doesn't fit.
        """
        definition, request = request_for(app, task, payload, options)
        if request.options.cron is not None:
            return cls("schedule_by_enqueue", _of_schedule(definition, request, request.options.cron), ())
        dumped = dump_payload(request.payload) if definition is None else definition.dump(request.payload)
        is_encoded = definition is not None and definition.encoding is not None
        context = current_context()
        if request.options is NO_OPTIONS and not is_encoded and not context:
            # Nineteen parameters that say nothing cost as much as the row.
            return cls("enqueue_plain", (request.name, dumped), (request.name,))
        return cls("enqueue", [*_of_task(request, dumped, context), is_encoded], (request.name,))

    @classmethod
    def many(cls, app: Registry | None, requests: Iterable[TaskRequest]) -> Enqueue:
        """Of many tasks, all or none.

        Raises:
            InvalidInputError: the same, and which request it is.
        """
        chosen = checked_requests(requests)
        encoded = [_is_encoded(app, request.name) for request in chosen]
        names = [request.name for request in chosen]
        return cls("enqueue_many", _of_tasks(chosen, dump_many(chosen, app), encoded), names)


def request_for(
    app: Registry | None, task: Enqueued, payload: object, options: RequestOptions
) -> tuple[Definition[..., Any] | None, TaskRequest]:
    """The request that an enqueue of one task stands for, and its definition as far as it is known.

    Raises:
        InvalidInputError: a name or an option breaks its rule, a request has two payloads, or the app doesn't
            know the name.
    """
    if isinstance(task, TaskRequest):
        if payload is not None:
            raise InvalidInputError("a request has its own payload; leave the second one out")
        request = task.with_options(**options) if options else task
        return _definition(app, request.name), request
    if task is None or isinstance(task, str):
        request = TaskRequest(task, payload, **options)
        return _definition(app, request.name), request
    definition = task if isinstance(task, Definition) else _registered(app, task)
    return definition, TaskRequest(definition.name, payload, **options)


def checked_requests(requests: Iterable[TaskRequest]) -> list[TaskRequest]:
    """The requests of one enqueue of many tasks.

    Raises:
        InvalidInputError: one is no request, or asks for a schedule; or there is no list of them.
    """
    if not isinstance(requests, Iterable):
        raise InvalidInputError(f"requests must be a list of TaskRequests, got {type(requests).__name__}")
    chosen = list(requests)
    for place, request in enumerate(chosen, 1):
        if not isinstance(request, TaskRequest):
            raise InvalidInputError(f"request {place}: a TaskRequest is needed, got {type(request).__name__}")
        if request.options.cron is not None:
            raise InvalidInputError(f"request {place}: cron is an option of `enqueue`, one at a time")
    return chosen


def _registered(app: Registry | None, function: Callable[..., Any]) -> Definition[..., Any]:
    if app is None:
        raise InvalidInputError("a function can be enqueued by a Client with an App; this one has none")
    return app[function]


def _definition(app: Registry | None, name: str) -> Definition[..., Any] | None:
    return None if app is None else app[name]


def _of_task(request: TaskRequest, payload: str, context: Mapping[str, str]) -> list[Any]:
    """The parameters of `enqueue.sql`, in order."""
    given = request.options
    instant, after = given.deadlines
    return [
        request.name,
        payload,
        given.priority,
        given.weight,
        given.labels,
        given.tags,
        given.unique_tag,
        given.unique_until,
        given.on_conflict or "return",
        given.serial_key,
        given.serial_id,
        given.parent_id,
        given.delay,
        given.run_at,
        instant,
        after,
        given.timeout,
        given.retry and given.retry.spec,
        given.retry and given.retry.max_attempts,
        given.keep,
        with_context(given.metadata, context),
        given.depends_on,
    ]


def _is_encoded(app: Registry | None, name: str) -> bool:
    definition = None if app is None else app.get(name)
    return definition is not None and definition.encoding is not None


def _of_tasks(requests: Sequence[TaskRequest], documents: list[str], encoded: Sequence[bool]) -> list[Any]:
    """The parameters of `enqueue_many.sql`, in order; a column that nobody gives is None."""
    context = current_context()
    given = [_traced(request.options, context) for request in requests]
    return [
        ",".join([request.name for request in requests]),
        documents,
        _column([options.priority for options in given]),
        _column([options.weight for options in given]),
        _column([None if options.labels is None else ",".join(options.labels) for options in given]),
        _column(list(map(_other_options, given, encoded))),
    ]


def _traced(given: TaskOptions, context: Mapping[str, str]) -> TaskOptions:
    return replace(given, metadata=with_context(given.metadata, context)) if context else given


def _column(values: list[Any]) -> list[Any] | None:
    return None if values.count(None) == len(values) else values


def _other_options(given: TaskOptions, encoded: bool) -> str | None:
    """The options that have no array of their own, as a JSON object."""
    if given is NO_OPTIONS and not encoded:
        return None
    others = given.as_json(but=("priority", "weight", "labels")) | ({"encoded": True} if encoded else {})
    return json.dumps(others) if others else None


def _of_schedule(definition: Definition[..., Any] | None, request: TaskRequest, cron: Cron) -> list[Any]:
    """The parameters of `schedule_by_enqueue.sql`, in order."""
    params = checked_params(definition, request.payload, cron)
    settings = written_options(request.options) | {
        "zone": cron.zone,
        "missed": cron.missed,
        "missed_limit": cron.limit,
        "overlap": cron.overlap,
    }
    return [request.name, params, cron.expression, json.dumps(settings)]
