"""Spans of a test, kept in memory: a provider that is there for the test only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from asynctaskd.telemetry import tracing

if TYPE_CHECKING:
    import pytest
    from opentelemetry.sdk.trace import ReadableSpan


class Spans:
    """What was traced, and a tracer for the test's own spans."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        # A process sets a provider once and for all; a test must not.
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
        monkeypatch.setattr(tracing, "_source", tracing._Source())
        self.tracer = provider.get_tracer("test")

    def named(self, name: str) -> list[ReadableSpan]:
        """Those that have ended, in that order."""
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """The only one of that name."""
        [span] = self.named(name)
        return span

    def everything(self) -> str:
        """All that was traced, as text."""
        return "\n".join(span.to_json() for span in self._exporter.get_finished_spans())


def is_child(child: ReadableSpan, parent: ReadableSpan) -> bool:
    """Whether a span has that parent."""
    return child.parent is not None and _ids(child.parent) == _ids(parent.get_span_context())


def is_linked(span: ReadableSpan, other: ReadableSpan) -> bool:
    """Whether a span has one link, to that other."""
    return [_ids(link.context) for link in span.links] == [_ids(other.get_span_context())]


def _ids(context: Any) -> tuple[int, int]:
    return context.trace_id, context.span_id
