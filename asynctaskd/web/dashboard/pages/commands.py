"""Actions on one task or on all that fit a filter: the preview, the deed, and the receipt."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING
from uuid import UUID

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse

from asynctaskd.control.browsing import TaskFilter
from asynctaskd.web.dashboard import filters
from asynctaskd.web.dashboard.bulk import ACTIONS, CAP, Action
from asynctaskd.web.dashboard.site import id_in, path_of, text_in

if TYPE_CHECKING:
    from starlette.datastructures import FormData
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    from asynctaskd.control.receipts import Receipt
    from asynctaskd.web.dashboard.site import Deed, Site

_SAMPLE = 10
_SHOWN = 200

# A claim out of turn is waited for so long; else it is taken back.
_PATIENCE = "5s"


class CommandPages:
    """`/bulk`, `/commands/ID` and the actions of a task."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """Where they are."""
        return [
            self._site.page("/bulk/{action}", self.preview, "bulk"),
            self._site.change("/bulk/{action}", self.carry_out, "carry_out"),
            self._site.change("/tasks/{task_id:int}/{action}", self.ask, "ask"),
            self._site.page("/commands/{request_id:uuid}", self.receipt, "command"),
        ]

    async def preview(self, request: Request) -> Response:
        """How many tasks it would be, and the first of them."""
        word, action = _action(request, in_bulk=True)
        given = filters.read(lambda name: (request.query_params.get(name) or "").strip())
        desk, budget = self._site.reading, self._site.budget
        found = await desk.select_tasks(action.narrowed(given.wanted), limit=CAP, budget=budget)
        sample = await desk.search_tasks(TaskFilter(ids=tuple(found.tasks[:_SAMPLE])), budget=budget)
        context = {
            "section": "tasks",
            "title": f"{action.title} tasks",
            "word": word,
            "action": action,
            "given": given,
            "found": found,
            "sample": sample.tasks if found.tasks else [],
            "cap": CAP,
        }
        return self._site.render(request, "bulk.html", context)

    async def carry_out(self, request: Request, form: FormData) -> Response:
        """Ask it of those that fit, at most so many, and none that came after the preview."""
        word, action = _action(request, in_bulk=True)
        given = filters.read(lambda name: text_in(form, name))
        newest = text_in(form, "newest")
        if not (newest.isdecimal() and len(newest) < 19):
            return self._site.error(request, 400, "Look at the preview first", "Nothing was changed.")
        found = await self._site.doing.select_tasks(
            action.narrowed(given.wanted),
            after=int(newest) + 1,
            limit=CAP,
            budget=self._site.budget,
        )
        ids = list(found.tasks)
        if not ids:
            return self._site.error(request, 409, "No task fits any more", "Nothing was changed.")
        left = found.next is not None
        target = {"filter": given.conditions, "tasks": len(ids), "more_are_left": left}
        async with self._site.noted(request, word, target) as deed:
            receipt = await self._site.doing.command(word, {"ids": ids}, timeout="0s")
            _tell(deed, receipt)
        query = f"?left={'yes' if left else 'no'}"
        return RedirectResponse(path_of(request, "command", request_id=receipt.request_id) + query, 303)

    async def ask(self, request: Request, form: FormData) -> Response:
        """Ask it of one task."""
        word, _ = _action(request)
        task_id = id_in(request)
        before = (await self._site.reading.statuses([task_id])).get(task_id)
        patience = _PATIENCE if word == "run_now" else "0s"
        was = before and {"status": before}
        async with self._site.noted(request, word, {"task": task_id}, before=was) as deed:
            receipt = await self._site.doing.command(word, {"ids": [task_id]}, timeout=patience)
            _tell(deed, receipt)
        return RedirectResponse(path_of(request, "command", request_id=receipt.request_id), 303)

    async def receipt(self, request: Request) -> Response:
        """What became of a command, task by task."""
        request_id: UUID = request.path_params["request_id"]
        receipt = await self._site.reading.receipt(request_id)
        context = {
            "section": "tasks",
            "title": f"{receipt.action.replace('_', ' ').capitalize()}",
            "receipt": receipt,
            "shown": receipt.tasks[:_SHOWN],
            "counts": Counter(task.outcome or "goes on" for task in receipt.tasks),
            "left": request.query_params.get("left") == "yes",
        }
        live = request.headers.get("hx-request") == "true"
        return self._site.render(request, "receipt_live.html" if live else "receipt.html", context)


def _tell(deed: Deed, receipt: Receipt) -> None:
    counts = Counter(task.outcome or "under way" for task in receipt.tasks)
    deed.outcome = ", ".join(f"{number} {how}" for how, number in sorted(counts.items())) or "no task"
    deed.target["request_id"] = receipt.request_id


def _action(request: Request, *, in_bulk: bool = False) -> tuple[str, Action]:
    word: str = request.path_params["action"].replace("-", "_")
    action = ACTIONS.get(word)
    if action is None or (in_bulk and not action.in_bulk):
        raise HTTPException(404, f"There is no action {word}.")
    return word, action
