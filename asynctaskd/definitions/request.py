"""What is to be enqueued: a name, a payload and options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Unpack

from asynctaskd.definitions import rules
from asynctaskd.definitions.options import RequestOptions, TaskOptions
from asynctaskd.errors import InvalidInputError


@dataclass(frozen=True, slots=True, init=False)
class TaskRequest:
    """A wish to enqueue one task, checked as far as it can be without its definition.

    The options `target` and `method` stand for the name of an exposed object's method. With an
    `idempotence_token` a second enqueue of that name and token gives the id of the first.

    Attributes:
        name: the task's name.
        payload: what the handler gets: a mapping, a model, or any value that can be written as JSON.
            None stands for `{}`.
        options: those that were given.

    Raises:
        InvalidInputError: the name or an option breaks its rule.
    """

    name: str
    payload: Any
    options: TaskOptions

    def __init__(
        self, /, name: str | None = None, payload: object = None, **options: Unpack[RequestOptions]
    ) -> None:
        target, method = options.pop("target", None), options.pop("method", None)
        if target is not None or method is not None:
            name = _name_of_call(name, target, method)
        object.__setattr__(self, "name", rules.name("task name", name))
        object.__setattr__(self, "payload", {} if payload is None else payload)
        object.__setattr__(self, "options", TaskOptions.requested(_with_tag(self.name, options)))

    def with_options(self, **options: Unpack[RequestOptions]) -> TaskRequest:
        """The same request, with these options in the place of its own; run_at replaces delay too."""
        copy = TaskRequest(self.name, self.payload)
        given = TaskOptions.requested(_with_tag(self.name, options))
        object.__setattr__(copy, "options", self.options.overridden_by(given))
        return copy


def name_of_call(target: str, method: str) -> str:
    """The name of the task that calls a method of an exposed object."""
    return f"{target}.{method}"


def _name_of_call(name: str | None, target: str | None, method: str | None) -> str:
    if name is not None or target is None or method is None:
        raise InvalidInputError("target and method go together, in the place of a name")
    return name_of_call(target, method)


def _with_tag(name: str, options: RequestOptions) -> RequestOptions:
    """The options with the idempotence token as the unique tag that it stands for."""
    if (token := options.pop("idempotence_token", None)) is None:
        return options
    if options.get("unique_tag") is not None:
        raise InvalidInputError("idempotence_token and unique_tag exclude each other")
    tag = f"{name}#{rules.text('idempotence_token', token)}"
    if len(tag) > rules.MAX_TEXT:
        raise InvalidInputError(
            f"idempotence_token must have at most {rules.MAX_TEXT - len(name) - 1} characters beside this "
            f"name, got {len(token)}"
        )
    return {**options, "unique_tag": tag}
