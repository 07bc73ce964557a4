"""Tracing, where the process has set a tracer provider of OpenTelemetry; else it isn't even imported.

A trace context travels with its task, in the metadata, as the W3C writes it: `traceparent`, `tracestate`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING

from asynctaskd.version import __version__

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from asynctaskd.telemetry.spans import ProcessSpan, SendSpan

# How long a look that found no provider holds, in seconds: looking costs more than all that is done then.
_LOOK_AGAIN = 1.0


class _Source:
    """The tracer, once there is a provider."""

    def __init__(self) -> None:
        self._tracer: Tracer | None = None  # once set it stays: a provider can't be replaced
        self._next_look = 0.0

    def tracer(self) -> Tracer | None:
        """None while spans would go nowhere."""
        if self._tracer is None and "opentelemetry.trace" in sys.modules and monotonic() >= self._next_look:
            self._next_look = monotonic() + _LOOK_AGAIN
            self._tracer = _find_tracer()
        return self._tracer


_source = _Source()


def begin_sending(name: str | None) -> SendSpan | None:
    """Begin the span of an enqueue, of a task of that name if it is known; None while nothing is traced."""
    if (tracer := _source.tracer()) is None:
        return None
    from asynctaskd.telemetry.spans import SendSpan  # noqa: PLC0415  (nothing of it is there without)

    return SendSpan(tracer, name)


def begin_processing(
    name: str, task_id: int, attempt: int, traceparent: str | None, tracestate: str | None
) -> ProcessSpan | None:
    """Begin the span of an attempt in this context, for good; None while nothing is traced."""
    if (tracer := _source.tracer()) is None:
        return None
    from asynctaskd.telemetry.spans import ProcessSpan  # noqa: PLC0415

    return ProcessSpan(tracer, name, task_id, attempt, traceparent, tracestate)


def current_context() -> Mapping[str, str]:
    """What a task's metadata has to say so that it belongs to the current span; empty without one."""
    if _source.tracer() is None:
        return {}
    from asynctaskd.telemetry.spans import written_context  # noqa: PLC0415

    return written_context()


def with_context(metadata: str | None, context: Mapping[str, str]) -> str | None:
    """A task's metadata (a JSON object) with a trace context; one that somebody gave stays as it is."""
    if not context:
        return metadata
    given = json.loads(metadata) if metadata else {}
    return metadata if "traceparent" in given else json.dumps({**given, **context}, ensure_ascii=False)


def error_type(error: BaseException) -> str:
    """An error's kind, as the attribute `error.type` has it."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _find_tracer() -> Tracer | None:
    from opentelemetry import trace  # noqa: PLC0415  (somebody else has imported it)

    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    return provider.get_tracer("asynctaskd", __version__)
