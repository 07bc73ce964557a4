"""One task: where it stands and why, what happened to it, whom it belongs to."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from asynctaskd.web.dashboard.bulk import ACTIONS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from asynctaskd.control.explanations import Moment, Why
    from asynctaskd.task import Task
    from asynctaskd.web.dashboard.site import Site

_HIDDEN = "(hidden)"
_TEXTS = ("error", "last_error")


class TaskPage:
    """`/tasks/ID`."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """Where it is."""
        return [self._site.page("/tasks/{task_id:int}", self.show, "task")]

    async def show(self, request: Request) -> Response:
        """All of one task."""
        task_id: int = request.path_params["task_id"]
        desk = self._site.reading
        task = await desk.get_task(task_id)
        [[task], why, moments, relatives] = await asyncio.gather(
            desk.hide_secrets([task]), desk.why(task_id), desk.timeline(task_id), desk.relatives(task_id)
        )
        if not self._site.shows_payloads:
            task, why, moments = _discreet(task, why, moments)
        context = {
            "section": "tasks",
            "title": f"Task {task_id}",
            "task": task,
            "why": why,
            "moments": moments,
            "relatives": {
                kind: [one for one in relatives if one.relation == kind]
                for kind in ("ancestor", "child", "needs", "needed by")
            },
            "actions": {word: action for word, action in ACTIONS.items() if task.status in action.of},
        }
        return self._site.render(request, "task.html", context)


def _discreet(task: Task, why: Why, moments: Iterable[Moment]) -> tuple[Task, Why, list[Moment]]:
    """Without what a handler was given, or has said."""
    told = why.explanation
    for text in filter(None, (task.last_error, (task.last_error or "")[:200])):
        told = told.replace(text, _HIDDEN)
    bare = replace(
        task,
        payload=None,
        result=None,
        metadata=None,
        last_error=task.last_error and _HIDDEN,
        progress=_numbers(task.progress),
    )
    shown = [replace(moment, detail=_without_texts(moment.detail)) for moment in moments]
    return bare, replace(why, explanation=told, detail=_without_texts(why.detail)), shown


def _without_texts(detail: dict[str, Any]) -> dict[str, Any]:
    return {key: _HIDDEN if key in _TEXTS and value else value for key, value in detail.items()}


def _numbers(progress: Any) -> Any:
    """How far it is, without the words that its handler found for that."""
    match progress:
        case {"percent": int() | float() as percent}:
            return {"percent": percent}
    return None
