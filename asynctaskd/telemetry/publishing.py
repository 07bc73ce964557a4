"""Tells of enqueues, by whatever driver: how many tasks, how long it took, and why it failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from asynctaskd.errors import DatabaseUnavailableError, InvalidInputError, TaskAlreadyExistsError
from asynctaskd.telemetry.events import emit, is_watched
from asynctaskd.telemetry.tracing import begin_sending, error_type

if TYPE_CHECKING:
    from asynctaskd.telemetry.spans import SendSpan

REASONS: Mapping[type[Exception], str] = {
    InvalidInputError: "invalid",
    TaskAlreadyExistsError: "exists",
    DatabaseUnavailableError: "unavailable",
}
"""Why a call enqueued nothing, by what it raised; anything else is `other`."""


class _HasNames(Protocol):
    @property
    def names(self) -> Sequence[str]: ...


Sent = TypeVar("Sent", bound=_HasNames)
Answer = TypeVar("Answer")


class Publication:
    """One call of an enqueue; whoever makes it says which tasks it sends, and what the database answered."""

    def __init__(self, span: SendSpan | None) -> None:
        self._span = span
        self.names: Sequence[str] = ()

    def of(self, sent: Sent) -> Sent:
        """This is about to be sent; returns it."""
        self.names = sent.names
        if self._span is not None:
            self._span.of(sent.names)
        return sent

    def made(self, answer: Answer) -> Answer:
        """The database has answered with an id, or with several; returns that."""
        if self._span is not None and isinstance(answer, int):
            self._span.made(answer)
        return answer


@contextmanager
def publishing(task: Any = None) -> Iterator[Publication]:
    """Tell of the enqueue that is made in the block, of that task if it is one."""
    span, began, failure = begin_sending(_name_of(task)), monotonic(), None
    publication = Publication(span)
    try:
        yield publication
    except BaseException as error:
        failure = error
        if isinstance(error, Exception):
            emit("enqueue.failed", reason=_reason(error), seconds=monotonic() - began)
        raise
    else:
        if is_watched("task.enqueued"):
            emit("task.enqueued", tasks=Counter(publication.names), seconds=monotonic() - began)
    finally:
        if span is not None:
            span.end(None if failure is None else error_type(failure))


def _name_of(task: Any) -> str | None:
    """The name of what is to be enqueued, as far as that can be seen at once."""
    name = task if isinstance(task, str) else getattr(task, "name", None)
    return name if isinstance(name, str) else None


def _reason(error: Exception) -> str:
    return next((reason for kind, reason in REASONS.items() if isinstance(error, kind)), "other")
