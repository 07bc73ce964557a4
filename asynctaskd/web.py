"""Who is looking? What a worker shows over HTTP: for now its metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import start_http_server

from asynctaskd.telemetry.events import emit

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


def serve(registry: CollectorRegistry, host: str, port: int) -> None:
    """Answer with the metrics, from threads of its own: a blocked event loop can be asked who blocks it.

    Where the address can't be had the worker goes on without; the log says so.
    """
    try:
        server, _ = start_http_server(port, host, registry)
    except (OSError, OverflowError) as error:  # taken, no address of ours, or past the last port
        emit("http.failed", host=host, port=port, error=error)
    else:
        emit("http.serving", host=host, port=server.server_port)
