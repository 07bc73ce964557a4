"""One task: where it stands and why, what happened to it, whom it belongs to."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from asynctaskd.web.dashboard.bulk import ACTIONS
from asynctaskd.web.dashboard.site import id_in
from asynctaskd.web.dashboard.wording import instant

if TYPE_CHECKING:
    from datetime import datetime

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from asynctaskd.control.explanations import Why
    from asynctaskd.task import Task
    from asynctaskd.web.dashboard.site import Site


class TaskPage:
    """`/tasks/ID`."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """Where it is."""
        return [self._site.page("/tasks/{task_id:int}", self.show, "task")]

    async def show(self, request: Request) -> Response:
        """All of one task."""
        task_id = id_in(request)
        desk = self._site.reading
        task = await desk.get_task(task_id)
        [[task], why, moments, relatives] = await asyncio.gather(
            desk.hide_secrets([task]), desk.why(task_id), desk.timeline(task_id), desk.relatives(task_id)
        )
        if not self._site.shows_payloads:
            why = _discreet(task, why)
        context = {
            "section": "tasks",
            "title": f"Task {task_id}",
            "task": task,
            "sees_values": desk.sees_values,
            "why": why,
            "moments": moments,
            "relatives": {
                kind: [one for one in relatives if one.relation == kind]
                for kind in ("ancestor", "child", "needs", "needed by")
            },
            "actions": {word: action for word, action in ACTIONS.items() if task.status in action.of},
        }
        return self._site.render(request, "task.html", context)


def _discreet(task: Task, why: Why) -> Why:
    """Without what a handler has said, whose last error the answer may quote."""
    if task.status.is_terminal:
        told = f"it has ended: {task.status} {_at(task.finished_at)}"
    elif why.reason == "retry":
        told = f"an execution failed and it is tried again {_at(task.run_at)}"
    else:
        return why
    return replace(why, explanation=f"{told}, {task.reason}" if task.reason else told, detail={})


def _at(moment: datetime | None) -> str:
    return f"at {instant(moment)}"
