"""Coming in with a token, and leaving."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import RedirectResponse
from starlette.routing import Route

from asynctaskd.web.dashboard.site import RETRY_AFTER, path_of, read_form, text_in
from asynctaskd.web.dashboard.visitors import address_of, is_ours

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from asynctaskd.web.dashboard.site import Site


class LoginPage:
    """`/login` and `/logout`: the two that need no token."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def routes(self) -> list[Route]:
        """Where they are."""
        return [
            Route("/login", self.show, name="login", methods=["GET"]),
            Route("/login", self.log_in, name="log_in", methods=["POST"]),
            Route("/logout", self.log_out, name="log_out", methods=["POST"]),
        ]

    async def show(self, request: Request) -> Response:
        """The form."""
        visitor = request.state.visitor = self._site.door.visitor(request)
        if visitor.role is not None:
            return RedirectResponse(path_of(request, "overview"), 303)
        response = self._form(request, request.query_params.get("to", ""))
        if visitor.is_new:
            self._site.door.remember(response, request, visitor)
        return response

    async def log_in(self, request: Request) -> Response:
        """With a right token: in, with a session. The answer to a wrong one says no more than that."""
        door = self._site.door
        request.state.visitor = visitor = door.visitor(request)
        if door.attempts.is_too_many(address_of(request)):
            response = self._form(request, "", "Too many wrong tokens. Wait a minute.", status=429)
            response.headers["Retry-After"] = RETRY_AFTER
            return response
        form = await read_form(request)
        if not is_ours(visitor, text_in(form, "csrf")):
            return self._form(request, "", "This form was too old. Try again.", status=403)
        known = door.log_in(request, text_in(form, "token"))
        if known is None:
            return self._form(request, text_in(form, "to"), "That is no token.", status=401)
        response = RedirectResponse(_within(request, text_in(form, "to")), 303)
        door.remember(response, request, known)
        return response

    async def log_out(self, request: Request) -> Response:
        """The session ends in this browser."""
        visitor = request.state.visitor = self._site.door.visitor(request)
        if not is_ours(visitor, text_in(await read_form(request), "csrf")):
            return self._site.error(request, 403, "This form is too old", "Nothing was changed.")
        response = RedirectResponse(path_of(request, "login"), 303)
        self._site.door.forget(response, request)
        return response

    def _form(self, request: Request, to: str, problem: str = "", *, status: int = 200) -> Response:
        context = {"section": None, "title": "Log in", "to": to, "problem": problem}
        return self._site.render(request, "login.html", context, status=status)


def _within(request: Request, to: str) -> str:
    """Where somebody wanted to go, if that is one of our pages."""
    home = path_of(request, "overview")
    is_ours_too = to.startswith(home) and not to.startswith("//") and "\\" not in to and to.isprintable()
    return to if is_ours_too else home
