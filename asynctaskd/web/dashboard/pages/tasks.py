"""Tasks by filter, the newest first."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import RedirectResponse

from asynctaskd.definitions import rules
from asynctaskd.postgres.driver import CutShortError
from asynctaskd.task import TaskStatus
from asynctaskd.web.dashboard import filters
from asynctaskd.web.dashboard.bulk import ACTIONS
from asynctaskd.web.dashboard.site import path_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from asynctaskd.control.browsing import Count
    from asynctaskd.web.dashboard.site import Site

PAGE = 50


class TasksPage:
    """`/tasks`."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """Where it is."""
        return [self._site.page("/tasks", self.show, "tasks")]

    async def show(self, request: Request) -> Response:
        """A part of the tasks that fit; of an id, that task."""
        get = request.query_params.get
        if asked := (get("id") or "").strip():
            task_id = rules.task_id("id", int(asked) if asked.isdecimal() else asked)
            return RedirectResponse(path_of(request, "task", task_id=task_id), 303)
        given = filters.read(lambda name: (get(name) or "").strip())
        after = get("after") or ""
        found, counts = await asyncio.gather(
            self._site.reading.search_tasks(
                given.wanted,
                after=int(after) if after.lstrip("-").isdecimal() and len(after) < 19 else None,
                limit=PAGE,
                budget=self._site.budget,
            ),
            self._counts(),
        )
        context = {
            "section": "tasks",
            "title": "Tasks",
            "given": given,
            "found": found,
            "counts": counts,
            "after": after,
            "statuses": list(TaskStatus),
            "actions": ACTIONS,
        }
        return self._site.render(request, "tasks.html", context)

    async def _counts(self) -> dict[TaskStatus, Count]:
        """The counts, or none where even they take too long."""
        try:
            return await self._site.reading.count_tasks()
        except CutShortError:
            return {}
