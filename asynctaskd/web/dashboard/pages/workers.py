"""The workers: who is live, what blocks them, and whose death was seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from asynctaskd.web.dashboard.site import Site

_ORDER = ("live", "lost", "stopped")
_SHOWN = 200


class WorkersPage:
    """`/workers`."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """Where it is."""
        return [self._site.page("/workers", self.show, "workers")]

    async def show(self, request: Request) -> Response:
        """Those that are live first."""
        workers = await self._site.reading.list_workers()
        counts = {status: sum(one["status"] == status for one in workers) for status in _ORDER}
        ordered = sorted(workers, key=lambda one: _ORDER.index(one["status"]))
        context = {
            "section": "workers",
            "title": "Workers",
            "workers": ordered[:_SHOWN],
            "counts": counts,
            "more": max(len(workers) - _SHOWN, 0),
            "newest": max((one["applied_config_version"] for one in workers), default=0),
        }
        return self._site.render(request, "workers.html", context)
