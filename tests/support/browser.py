"""Somebody before the dashboard, without a browser: pages are asked for, and their forms sent."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from asynctaskd.web.dashboard.visitors import COOKIE

if TYPE_CHECKING:
    import httpx
    from starlette.applications import Starlette

HOST = "http://localhost"


class Browser:
    """Asks as a browser does, and fills in forms as somebody does who has seen the page."""

    def __init__(self, http: httpx.AsyncClient, site: Starlette) -> None:
        self.http = http
        self.site = site

    async def text(self, path: str) -> str:
        """The page, which is there."""
        answer = await self.http.get(path)
        assert answer.status_code == 200, answer.text
        return answer.text

    async def post(self, path: str, /, **fields: str) -> httpx.Response:
        """Send a form that came from a page of this session's."""
        return await self.http.post(path, data={"csrf": self.csrf, **fields}, headers={"Origin": HOST})

    async def follow(self, answer: httpx.Response) -> str:
        """The page that a form leads to."""
        assert answer.status_code == 303, answer.text
        return await self.text(answer.headers["location"])

    async def log_in(self, secret: str, to: str = "") -> httpx.Response:
        """Open the form, and send it with this token."""
        await self.text("/login")
        return await self.post("/login", token=secret, to=to)

    @property
    def csrf(self) -> str:
        """What the forms of this session bring along."""
        cookie = self.http.cookies.get(COOKIE)
        assert cookie, "ask for a page first"
        door = next(site.door for site in _sites(self.site))
        return str(door._signer.loads(cookie)["csrf"])


def _sites(app: Starlette) -> list[Any]:
    """The site behind the handlers of an application."""
    return [handler.__self__ for handler in app.exception_handlers.values() if hasattr(handler, "__self__")]


def csrf_in(page: str) -> str:
    """What the first form of a page brings along."""
    found = re.search(r'name="csrf" value="([^"]+)"', page)
    assert found
    return found[1]
