"""Schedules: what comes next, what became of the last slots, and the few things to do with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse

from asynctaskd.web.dashboard.site import path_of

if TYPE_CHECKING:
    from starlette.datastructures import FormData
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from asynctaskd.web.dashboard.site import Site

_SLOTS = 50


class SchedulePages:
    """`/schedules` and `/schedules/NAME`."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """Where they are."""
        page, change = self._site.page, self._site.change
        return [
            page("/schedules", self.show, "schedules"),
            change("/schedules/{name:path}/pause", self.pause, "pause_schedule"),
            change("/schedules/{name:path}/resume", self.resume, "resume_schedule"),
            change("/schedules/{name:path}/run", self.run, "run_schedule"),
            page("/schedules/{name:path}", self.show_one, "schedule"),
        ]

    async def show(self, request: Request) -> Response:
        """All of them, each with its next slots."""
        schedules = await self._site.reading.list_schedules(count=3)
        context = {"section": "schedules", "title": "Schedules", "schedules": schedules}
        return self._site.render(request, "schedules.html", context)

    async def show_one(self, request: Request) -> Response:
        """One, with what became of its last slots."""
        name: str = request.path_params["name"]
        found = await self._site.reading.hide_secrets(await self._site.reading.list_schedules(name))
        if not found:
            raise HTTPException(404, f"There is no schedule {name}.")
        slots = await self._site.reading.list_slots(name, limit=_SLOTS)
        context = {"section": "schedules", "title": name, "schedule": found[0], "slots": slots}
        return self._site.render(request, "schedule.html", context)

    async def pause(self, request: Request, _: FormData) -> Response:
        """No slots until it is resumed."""
        name: str = request.path_params["name"]
        async with self._site.noted(request, "pause_schedule", {"schedule": name}) as deed:
            await self._site.doing.pause_schedule(name)
            deed.outcome = "paused"
        return RedirectResponse(path_of(request, "schedule", name=name), 303)

    async def resume(self, request: Request, _: FormData) -> Response:
        """Slots from now on."""
        name: str = request.path_params["name"]
        async with self._site.noted(request, "resume_schedule", {"schedule": name}) as deed:
            await self._site.doing.resume_schedule(name)
            deed.outcome = "resumed"
        return RedirectResponse(path_of(request, "schedule", name=name), 303)

    async def run(self, request: Request, _: FormData) -> Response:
        """A task at once, beside its slots."""
        name: str = request.path_params["name"]
        async with self._site.noted(request, "run_schedule", {"schedule": name}) as deed:
            task_id = await self._site.doing.run_schedule(name)
            deed.outcome = f"enqueued task {task_id}"
        return RedirectResponse(path_of(request, "task", task_id=task_id), 303)
