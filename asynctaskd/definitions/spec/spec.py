"""What a file says, once it is read and checked: plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """One task.

    Attributes:
        name: its name, as the file writes it.
        description: what it does, or nothing.
        parameters: the JSON schema of its payload, an object's, in the form of `schema.read_schema`; or None,
            where it has no parameters.
        options: what is given to `@app.task`, by name.
        has_hook: whether its executor has a method that runs when it fails for good.
        on_failed: the name of the task that is enqueued when it fails for good.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    has_hook: bool = False
    on_failed: str | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """A file of definitions.

    Attributes:
        file: its name, without directories.
        tasks: in the order of the file, at least one.
        warnings: what is odd about it, with its place.
    """

    file: str
    tasks: Sequence[TaskSpec]
    warnings: Sequence[str] = ()
