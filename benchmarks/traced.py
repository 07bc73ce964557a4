"""The tasks that do nothing, traced: `--app benchmarks.traced:app`. BENCH_TRACES is a share of all traces."""

from __future__ import annotations

import os

from opentelemetry import trace

from benchmarks.noop import app

__all__ = ["app"]

if share := float(os.environ["BENCH_TRACES"]):
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(share)))
    provider.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
    trace.set_tracer_provider(provider)
