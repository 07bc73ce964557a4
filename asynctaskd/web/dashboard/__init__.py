"""The dashboard: an ASGI application that shows a fleet and, if that is allowed, changes it.

It needs `pip install 'asynctaskd[dashboard]'`.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from asynctaskd.errors import AsynctaskdError
from asynctaskd.web.dashboard.access import Tokens
from asynctaskd.web.dashboard.desk import Desk
from asynctaskd.web.dashboard.guard import Guard
from asynctaskd.web.dashboard.pages.audit import AuditPage
from asynctaskd.web.dashboard.pages.commands import CommandPages
from asynctaskd.web.dashboard.pages.configuration import ConfigurationPages
from asynctaskd.web.dashboard.pages.groups import GroupsPage
from asynctaskd.web.dashboard.pages.login import LoginPage
from asynctaskd.web.dashboard.pages.overview import OverviewPage
from asynctaskd.web.dashboard.pages.schedules import SchedulePages
from asynctaskd.web.dashboard.pages.task import TaskPage
from asynctaskd.web.dashboard.pages.tasks import TasksPage
from asynctaskd.web.dashboard.pages.workers import WorkersPage
from asynctaskd.web.dashboard.site import Site
from asynctaskd.web.dashboard.visitors import Door

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

    import asyncpg
    from starlette.responses import Response

    from asynctaskd.definitions.registry import Registry

_PAGES = (
    OverviewPage,
    TasksPage,
    TaskPage,
    CommandPages,
    GroupsPage,
    WorkersPage,
    SchedulePages,
    ConfigurationPages,
    AuditPage,
    LoginPage,
)
_STATIC = Path(__file__).parent / "static"

LIMIT = timedelta(milliseconds=500)
"""How long a statement of a page may take. None takes a tenth of that, unless the server is busy."""

BUDGET = timedelta(milliseconds=75)
"""For how long tasks are looked for; what was found by then is shown, and where to go on."""


def dashboard(
    database: asyncpg.Pool | str,
    app: Registry | None = None,
    *,
    schema: str = "asynctaskd",
    tokens: Tokens | Callable[[], Tokens] | None = None,
    may_write: bool = False,
    shows_payloads: bool = False,
    hosts: Collection[str] | None = None,
    limit: timedelta = LIMIT,
) -> Starlette:
    """An application to serve, or to mount below any path.

    Args:
        database: a pool of the caller's, or the URL of a database.
        app: with an App, payloads that its codecs have encoded are shown as they were, and the fields that
            it marks as secret are hidden, whether a worker has registered them or not.
        schema: where asynctaskd's tables are.
        tokens: who is let in, or what says who is now; without any, everybody is, and the caller sees to it
            that only this machine reaches it.
        may_write: whether tasks, schedules and the runtime configuration can be changed, by those whose
            token says so.
        shows_payloads: whether payloads, results and error texts are shown. Fields known to be secret never
            are.
        hosts: the names by which it may be asked for; None: any, which is for where tokens are needed.
        limit: how long a statement of a page may take, where `database` is a URL.
    """
    known = app if shows_payloads else None
    reading = Desk(database, known, schema=schema, limit=limit, is_discreet=not shows_payloads)
    doing = Desk(database, schema=schema)
    let_in = tokens or Tokens()
    door = Door(let_in if callable(let_in) else lambda: let_in, may_write=may_write)
    site = Site(reading, doing, door, shows_payloads=shows_payloads, budget=BUDGET)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await reading.close()
        await doing.close()

    return Starlette(
        routes=[
            *(route for page in _PAGES for route in page(site).routes()),
            Mount("/static", _Kept(directory=_STATIC), name="static"),
        ],
        middleware=[Middleware(Guard, hosts=hosts)],
        exception_handlers={AsynctaskdError: site.refused, HTTPException: site.not_there},
        lifespan=lifespan,
    )


class _Kept(StaticFiles):
    """Files that browsers may keep: their address has the version in it."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        """The file, to be kept for a day."""
        response = super().file_response(*args, **options)
        response.headers["Cache-Control"] = "public, max-age=86400"
        return response
