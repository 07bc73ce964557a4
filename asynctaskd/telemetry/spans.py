"""Spans of enqueues and attempts, by OpenTelemetry's conventions for messaging.

Only imported where there is who takes them. They hold names, numbers and kinds of errors, never what errors
say, and no payloads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import (
    Link,
    SpanKind,
    StatusCode,
    format_trace_id,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

SYSTEM = "asynctaskd"
"""The value of `messaging.system`."""

_W3C = TraceContextTextMapPropagator()


def written_context() -> dict[str, str]:
    """The current span as `traceparent` and, if there is more to say, `tracestate`; empty without one."""
    written: dict[str, str] = {}
    _W3C.inject(written)
    return written


class SendSpan:
    """The span of one enqueue, current from its beginning to its end."""

    def __init__(self, tracer: Tracer, name: str | None) -> None:
        self._span = tracer.start_span(
            _named("send", name), kind=SpanKind.PRODUCER, attributes=_attributes("send", name)
        )
        self._token = attach(set_span_in_context(self._span))

    def of(self, names: Sequence[str]) -> None:
        """Tasks of these names are being sent."""
        if len(set(names)) == 1:
            self._span.update_name(_named("send", names[0]))
            self._span.set_attribute("messaging.destination.name", names[0])
        if len(names) != 1:
            self._span.set_attribute("messaging.batch.message_count", len(names))

    def made(self, task_id: int) -> None:
        """One task was sent, and has this id."""
        self._span.set_attribute("messaging.message.id", str(task_id))

    def end(self, error_type: str | None) -> None:
        """It is over; one that failed has a kind of error."""
        detach(self._token)
        _end(self._span, error_type)


class ProcessSpan:
    """The span of one attempt, current in the context in which it began.

    It is a child of the span that enqueued the task, and linked to it: as the conventions allow where a
    message is processed by itself.

    Args:
        traceparent: what the task carries, and `tracestate` too; what can't be read is ignored.
    """

    def __init__(
        self,
        tracer: Tracer,
        name: str,
        task_id: int,
        attempt: int,
        traceparent: str | None,
        tracestate: str | None,
    ) -> None:
        context = _context_of(traceparent, tracestate)
        origin = get_current_span(context).get_span_context()
        attributes = {
            **_attributes("process", name),
            "messaging.message.id": str(task_id),
            "messaging.asynctaskd.attempt": attempt,
        }
        links = [Link(origin)] if origin.is_valid else None
        self._span = tracer.start_span(_named("process", name), context, SpanKind.CONSUMER, attributes, links)
        attach(set_span_in_context(self._span, context))

    @property
    def trace_id(self) -> str:
        """Of 32 hexadecimal digits."""
        return format_trace_id(self._span.get_span_context().trace_id)

    def end(self, error_type: str | None) -> None:
        """The attempt is over; one that failed has a kind of error."""
        _end(self._span, error_type)

    def resume(self) -> None:
        """Let what is done in this context from now on belong to the attempt, which may be over."""
        attach(set_span_in_context(self._span, Context()))


@lru_cache(maxsize=256)  # tasks that were enqueued together carry the same
def _context_of(traceparent: str | None, tracestate: str | None) -> Context:
    """The enqueuer's context, with nothing of the worker's own."""
    written = {"traceparent": traceparent, "tracestate": tracestate}
    return _W3C.extract({name: value for name, value in written.items() if value is not None}, Context())


def _end(span: Span, error_type: str | None) -> None:
    if error_type is not None:
        span.set_attribute("error.type", error_type)
        span.set_status(StatusCode.ERROR)
    span.end()


def _named(operation: str, name: str | None) -> str:
    return operation if name is None else f"{operation} {name}"


@lru_cache(maxsize=256)
def _attributes(operation: str, name: str | None) -> Mapping[str, str | int]:
    attributes: dict[str, str | int] = {
        "messaging.system": SYSTEM,
        "messaging.operation.type": operation,
        "messaging.operation.name": operation,
    }
    if name is not None:
        attributes["messaging.destination.name"] = name
    return attributes
