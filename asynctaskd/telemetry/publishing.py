"""Tells of enqueues, by whatever driver: how many tasks, how long it took, and why it failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic

from asynctaskd.errors import DatabaseUnavailableError, InvalidInputError, TaskAlreadyExistsError
from asynctaskd.telemetry.events import emit

REASONS: Mapping[type[Exception], str] = {
    InvalidInputError: "invalid",
    TaskAlreadyExistsError: "exists",
    DatabaseUnavailableError: "unavailable",
}
"""Why a call enqueued nothing, by what it raised; anything else is `other`."""


class Publication:
    """One call of an enqueue; whoever makes it says which tasks it sends."""

    def __init__(self) -> None:
        self.tasks: Mapping[str, int] = Counter()

    def of(self, names: Iterable[str]) -> None:
        """Tasks of these names are about to be sent."""
        self.tasks = Counter(names)


@contextmanager
def publishing() -> Iterator[Publication]:
    """Tell of the enqueue that is made in the block."""
    publication, began = Publication(), monotonic()
    try:
        yield publication
    except Exception as error:
        emit("enqueue.failed", reason=_reason(error), seconds=monotonic() - began)
        raise
    emit("task.enqueued", tasks=publication.tasks, seconds=monotonic() - began)


def _reason(error: Exception) -> str:
    return next((reason for kind, reason in REASONS.items() if isinstance(error, kind)), "other")
