"""What is to be enqueued: a name, a payload and options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Unpack

from asynctaskd.definitions import rules
from asynctaskd.definitions.options import RequestOptions, TaskOptions


@dataclass(frozen=True, slots=True, init=False)
class TaskRequest:
    """A wish to enqueue one task, checked as far as it can be without its definition.

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

    def __init__(self, name: str, payload: object = None, **options: Unpack[RequestOptions]) -> None:
        object.__setattr__(self, "name", rules.name("task name", name))
        object.__setattr__(self, "payload", {} if payload is None else payload)
        object.__setattr__(self, "options", TaskOptions.requested(options))

    def with_options(self, **options: Unpack[RequestOptions]) -> TaskRequest:
        """The same request, with these options in the place of its own; run_at replaces delay too."""
        copy = TaskRequest(self.name, self.payload)
        object.__setattr__(copy, "options", self.options.overridden_by(TaskOptions.requested(options)))
        return copy
