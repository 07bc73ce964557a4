"""What a worker shows over HTTP: for now its metrics."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer
from typing_extensions import override

from asynctaskd.telemetry.events import emit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

    from prometheus_client import CollectorRegistry


def serve(registry: CollectorRegistry, host: str, port: int) -> None:
    """Answer with the metrics, from threads of its own: a blocked event loop can be asked who blocks it.

    Where the address can't be had the worker goes on without; the log says so.
    """
    try:
        server = make_server(host, port, _pages(registry), ThreadingWSGIServer, handler_class=_Silent)
    except (OSError, OverflowError) as error:  # taken, no address of ours, or past the last port
        emit("http.failed", host=host, port=port, error=error)
        return
    threading.Thread(target=server.serve_forever, name="asynctaskd-http", daemon=True).start()
    emit("http.serving", host=host, port=server.server_port)


def _pages(registry: CollectorRegistry) -> Callable[..., Iterable[bytes]]:
    metrics: Callable[..., Iterable[bytes]] = make_wsgi_app(registry)

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/metrics":
            return metrics(environ, start_response)
        # A probe that asks for health must not take metrics for it.
        start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"there is nothing here but /metrics\n"]

    return answer


class _Silent(WSGIRequestHandler):
    """Not a line on standard error for each request."""

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
