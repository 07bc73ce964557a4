"""What all pages share: who may see them, how they are drawn, and what becomes of errors and changes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from asynctaskd.definitions.rules import MAX_INT64
from asynctaskd.errors import (
    AsynctaskdError,
    DatabaseRefusedError,
    DatabaseUnavailableError,
    InvalidInputError,
    InvalidStateError,
    SchemaVersionError,
    TaskNotFoundError,
)
from asynctaskd.postgres.caller import not_found
from asynctaskd.postgres.driver import CutShortError
from asynctaskd.telemetry.events import emit
from asynctaskd.version import __version__
from asynctaskd.web.dashboard.visitors import Door, Visitor, address_of, is_ours
from asynctaskd.web.dashboard.wording import FILTERS

if TYPE_CHECKING:
    from datetime import timedelta

    from asynctaskd.web.dashboard.desk import Desk

Endpoint = Callable[[Request], Awaitable[Response]]
Change = Callable[[Request, FormData], Awaitable[Response]]

RETRY_AFTER = "60"
"""How long whoever has tried too many tokens has to wait, in seconds, as HTTP says it."""

_LONGEST_FORM = 64 * 1024

_SECTIONS = {
    "overview": "Overview",
    "tasks": "Tasks",
    "groups": "Groups",
    "workers": "Workers",
    "schedules": "Schedules",
    "configuration": "Configuration",
    "audit": "Audit",
}

# The first that fits counts.
_TITLES: Mapping[type[Exception], tuple[int, str]] = {
    CutShortError: (503, "This took too long, and was cut short"),
    TaskNotFoundError: (404, "There is no such task"),
    InvalidInputError: (422, "That is not possible"),
    InvalidStateError: (409, "That is not possible now"),
    SchemaVersionError: (503, "The database's schema is of another version"),
    DatabaseUnavailableError: (503, "The database can't be reached"),
    DatabaseRefusedError: (403, "The database refused"),
    AsynctaskdError: (500, "That went wrong"),
}
_ADVICE: Mapping[type[Exception], str] = {
    CutShortError: "Narrow the filter, or try again in a moment.",
    DatabaseUnavailableError: "Try again in a moment.",
}


@dataclass(slots=True)
class Deed:
    """A change, as whoever makes it tells what came of it.

    Attributes:
        target: of what; what is known only afterwards is added.
        outcome: in words.
    """

    target: dict[str, Any]
    outcome: str = "done"


@dataclass(frozen=True, slots=True)
class Site:
    """The parts that pages are made with.

    Attributes:
        reading: asks; each of its statements has a limit.
        doing: changes, and waits for what comes of it.
        door: knows visitors.
        shows_payloads: whether payloads, results and error texts are shown.
        budget: how long a search may look for tasks.
    """

    reading: Desk
    doing: Desk
    door: Door
    shows_payloads: bool
    budget: timedelta

    def page(self, path: str, endpoint: Endpoint, name: str) -> Route:
        """A page for whoever may read."""
        return Route(path, partial(self._shown, endpoint), name=name, methods=["GET"])

    def change(self, path: str, endpoint: Change, name: str) -> Route:
        """Where a form is sent by whoever may write."""
        return Route(path, partial(self._changed, endpoint), name=name, methods=["POST"])

    def render(
        self, request: Request, template: str, context: Mapping[str, Any], *, status: int = 200
    ) -> Response:
        """A page from its template. A part of it, where htmx asks for one."""
        part = request.headers.get("hx-request") == "true" and not request.headers.get("hx-boosted")
        text = _TEMPLATES.get_template(template).render(
            **context,
            request=request,
            visitor=request.state.visitor,
            shows_payloads=self.shows_payloads,
            needs_login=bool(self.door.tokens),
            path=partial(path_of, request),
            link=partial(link_to, request),
            sections=_SECTIONS,
            version=__version__,
            layout="part.html" if part else "layout.html",
        )
        return HTMLResponse(text, status)

    def error(self, request: Request, status: int, title: str, text: str, advice: str = "") -> Response:
        """A page that says what is wrong."""
        if not hasattr(request.state, "visitor"):
            request.state.visitor = self.door.visitor(request)
        context = {"title": title, "text": text, "advice": advice, "section": None}
        return self.render(request, "error.html", context, status=status)

    async def refused(self, request: Request, error: Exception) -> Response:
        """The page for an error of ours."""
        status, title = next(said for kind, said in _TITLES.items() if isinstance(error, kind))
        text = ". ".join((str(error), *getattr(error, "__notes__", ())))
        advice = next((said for kind, said in _ADVICE.items() if isinstance(error, kind)), "")
        return self.error(request, status, title, text, advice)

    async def not_there(self, request: Request, error: Exception) -> Response:
        """The page for an address that leads nowhere, or a refusal."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        text = error.detail if isinstance(error, HTTPException) else ""
        return self.error(request, status, "Not found" if status == 404 else "Refused", text)

    @asynccontextmanager
    async def noted(
        self,
        request: Request,
        action: str,
        target: Mapping[str, Any],
        *,
        before: Any = None,
        after: Any = None,
    ) -> AsyncIterator[Deed]:
        """Write down that somebody asks for a change, do it within the block, and write down what came of it.

        Where the first row can't be written nothing is done, and the error says so. Where the second can't,
        the log says so: what was done is done, and whoever asked for it is to see that.
        """
        visitor: Visitor = request.state.visitor
        write = partial(
            self.doing.note_audit,
            actor=visitor.name or "",
            address=address_of(request) or None,
            action=action,
            before=before,
            after=after,
        )
        try:
            asked = await write(target=dict(target), outcome="asked")
        except AsynctaskdError as error:
            error.add_note("Nothing was changed, since it can't be written down who asked for it.")
            raise
        deed = Deed({**target, "asked": asked})
        try:
            yield deed
        except AsynctaskdError as error:
            await _settle(write, deed.target, f"failed: {error}")
            raise
        await _settle(write, deed.target, deed.outcome)

    async def _shown(self, endpoint: Endpoint, request: Request) -> Response:
        visitor = request.state.visitor = self.door.visitor(request)
        if visitor.is_early:
            return self._ask_to_wait(request)
        if visitor.role is None:
            return self._ask_to_log_in(request)
        response = await endpoint(request)
        if visitor.is_new and visitor.csrf is not None:
            self.door.remember(response, request, visitor)
        return response

    async def _changed(self, endpoint: Change, request: Request) -> Response:
        visitor = request.state.visitor = self.door.visitor(request)
        if visitor.is_early:
            return self._ask_to_wait(request)
        if visitor.role is None:
            return self.error(request, 401, "Log in first", "Nothing was changed.")
        form = await read_form(request)
        if visitor.csrf is not None and not is_ours(visitor, text_in(form, "csrf")):
            return self.error(
                request, 403, "This form is too old", "Nothing was changed. Go back, reload and try again."
            )
        if not visitor.may_write:
            return self.error(
                request, 403, "You may only read here", "Nothing was changed: this needs a role that writes."
            )
        return await endpoint(request, form)

    def _ask_to_wait(self, request: Request) -> Response:
        response = self.error(request, 429, "Too many wrong tokens", "Wait a minute.")
        response.headers["Retry-After"] = RETRY_AFTER
        return response

    def _ask_to_log_in(self, request: Request) -> Response:
        if "text/html" not in request.headers.get("accept", "") or request.headers.get("hx-request"):
            response = self.error(request, 401, "Log in first", "A token is needed.")
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"{path_of(request, 'login')}?{urlencode({'to': asked})}", 303)


async def _settle(write: Callable[..., Awaitable[int]], target: dict[str, Any], outcome: str) -> None:
    try:
        await write(target=target, outcome=outcome)
    except Exception as error:  # noqa: BLE001  (what was done is done, and is to be shown)
        emit("audit.failed", target=target, outcome=outcome, error=error)


async def read_form(request: Request) -> FormData:
    """The form of a request, as far as it may be one.

    Raises:
        HTTPException: it is too long, or doesn't say how long it is; or it has a NUL, which is in no text.
    """
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        raise HTTPException(411, "A form has to say how long it is.")
    if int(length) > _LONGEST_FORM:
        raise HTTPException(413, f"A form may have at most {_LONGEST_FORM:,} bytes.")
    form = await request.form(max_files=0, max_fields=200)
    if any("\0" in value for value in form.values() if isinstance(value, str)):
        raise HTTPException(400, "A form has no NUL in it.")
    return form


def id_in(request: Request) -> int:
    """The task's id in the path.

    Raises:
        TaskNotFoundError: no task can have it.
    """
    task_id: int = request.path_params["task_id"]
    if task_id > MAX_INT64:
        raise not_found(task_id)
    return task_id


def text_in(form: FormData, name: str) -> str:
    """A field of a form; empty where it is missing."""
    value = form.get(name, "")
    return value.strip() if isinstance(value, str) else ""


def path_of(request: Request, page: str, /, **parameters: Any) -> str:
    """The path of a page, wherever the dashboard is mounted."""
    return str(request.scope.get("root_path", "")) + str(request.app.url_path_for(page, **parameters))


def link_to(request: Request, page: str, query: Mapping[str, Any], /, **parameters: Any) -> str:
    """The same with a query; what is empty is left out."""
    given = {key: value for key, value in query.items() if value not in (None, "", (), [])}
    path = path_of(request, page, **parameters)
    return f"{path}?{urlencode(given, doseq=True)}" if given else path


_TEMPLATES = Environment(
    loader=PackageLoader("asynctaskd.web.dashboard"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= FILTERS
