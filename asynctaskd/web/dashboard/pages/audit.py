"""Who has changed what."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from asynctaskd.web.dashboard.site import Site

_PAGE = 50


class AuditPage:
    """`/audit`."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """Where it is."""
        return [self._site.page("/audit", self.show, "audit")]

    async def show(self, request: Request) -> Response:
        """The newest rows first."""
        before = request.query_params.get("before", "")
        first = int(before) if before.isdecimal() and len(before) < 19 else None
        rows = await self._site.reading.list_audit(before=first, limit=_PAGE + 1)
        context = {
            "section": "audit",
            "title": "Audit",
            "rows": rows[:_PAGE],
            "next": rows[_PAGE - 1].id if len(rows) > _PAGE else None,
            "before": before,
        }
        return self._site.render(request, "audit.html", context)
