"""What can a worker be asked? The pages that each has: is it alive, is it ready, and its numbers."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from prometheus_client import CollectorRegistry
    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from asynctaskd.telemetry.health import Health

# In seconds: the main loop says that it turns more often than that.
_ONE_TURN = 0.7

_FRESH = {"Cache-Control": "no-store"}


def worker_site(
    health: Health, registry: CollectorRegistry, *, dashboard: Starlette | None = None
) -> Starlette:
    """The pages of a worker: whatever is served beside them is put together here.

    A `dashboard` is below /dashboard/, and lives as long as the site does.
    """
    routes = [*health_routes(health), metrics_route(registry)]
    if dashboard is None:
        return Starlette(routes=routes)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with dashboard.router.lifespan_context(dashboard):
            yield

    return Starlette(routes=[*routes, Mount("/dashboard", dashboard)], lifespan=lifespan)


def health_routes(health: Health) -> Sequence[BaseRoute]:
    """`/livez` and `/readyz`: 200 or 503, and JSON that says why. Answered from facts, so at once."""

    async def livez(_: Request) -> Response:
        if not health.is_alive():  # the whole process may have been frozen: let the loop come round first
            await asyncio.sleep(_ONE_TURN)
        is_alive = health.is_alive()
        told = {
            "alive": is_alive,
            "loop_stood_still_seconds": round(health.stood_still(), 1),
            "limit_seconds": health.stall_limit,
        }
        return _told(told, ok=is_alive)

    async def readyz(_: Request) -> Response:
        checks = health.checks()
        failing = [check.name for check in checks if not check.ok]
        told = {
            "ready": not failing,
            "failing": failing,
            "checks": {check.name: {"ok": check.ok, "reason": check.reason} for check in checks},
        }
        return _told(told, ok=not failing)

    return [Route("/livez", livez), Route("/readyz", readyz)]


def metrics_route(registry: CollectorRegistry) -> BaseRoute:
    """`/metrics`, for Prometheus."""

    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(registry), headers={"Content-Type": content_type})

    return Route("/metrics", metrics)


def _told(told: dict[str, Any], *, ok: bool) -> Response:
    return JSONResponse(told, 200 if ok else 503, headers=_FRESH)
