"""Who asks: by bearer token, by the signed cookie of a login, or anybody where no token is needed."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from itsdangerous import BadData, URLSafeTimedSerializer

from asynctaskd.web.dashboard.access import Attempts, Role, Tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.responses import Response

COOKIE = "asynctaskd_dashboard"
"""The cookie's name; `cookie_of` adds the port."""

LIFETIME = 12 * 3600
"""How long a login lasts, in seconds."""

LOCAL = "local"
"""Who acts where no token is needed."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who asks.

    Attributes:
        name: of the token, or `local`; None: not logged in.
        role: what they may do; None: not even read.
        csrf: what forms have to bring along; None of a bearer token, which no browser sends by itself.
        is_new: whether the cookie has to be set.
        is_early: whether they have to wait, since wrong tokens came from where they are.
    """

    name: str | None
    role: Role | None
    csrf: str | None
    is_new: bool = False
    is_early: bool = False

    @property
    def may_write(self) -> bool:
        """Whether they may change something."""
        return self.role is Role.WRITE


class Door:
    """Knows visitors again.

    Args:
        tokens: says who is let in now; none: everybody.
        may_write: whether anybody may change something; else every visitor can only read.

    Attributes:
        tokens: who was let in when the last visitor came: so nobody is known by one token and gets a session
            that belongs to its successor.
    """

    def __init__(self, tokens: Callable[[], Tokens], *, may_write: bool) -> None:
        self.attempts = Attempts()
        self.tokens = tokens()
        self._current = tokens
        self._may_write = may_write

    @property
    def _signer(self) -> URLSafeTimedSerializer:
        return URLSafeTimedSerializer(self.tokens.session_key, salt="asynctaskd.dashboard")

    def visitor(self, request: Request) -> Visitor:
        """Who asks. A wrong bearer token is counted, and makes nobody of them."""
        self.tokens = self._current()
        bearer = request.headers.get("authorization", "")
        if bearer[:7].lower() == "bearer " and self.tokens:
            return self._by_secret(request, bearer[7:].strip())
        return self._by_cookie(request)

    def log_in(self, request: Request, secret: str) -> Visitor | None:
        """The visitor who has that token, with a new session; None: there is no such token."""
        token = self.tokens.by_secret(secret)
        if token is None:
            self.attempts.note(address_of(request))
            return None
        return Visitor(token.name, self._role(token.role), secrets.token_urlsafe(24), is_new=True)

    def remember(self, response: Response, request: Request, visitor: Visitor) -> None:
        """Set the cookie by which they are known again."""
        response.set_cookie(
            cookie_of(request),
            self._signer.dumps({"name": visitor.name, "csrf": visitor.csrf}),
            max_age=LIFETIME,
            path=request.scope.get("root_path", "") or "/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )

    def forget(self, response: Response, request: Request) -> None:
        """Take the cookie back."""
        path = request.scope.get("root_path", "") or "/"
        response.delete_cookie(cookie_of(request), path=path, httponly=True, samesite="strict")

    def _by_secret(self, request: Request, secret: str) -> Visitor:
        address = address_of(request)
        if self.attempts.is_too_many(address):  # not counted, or it would never end
            return Visitor(None, None, None, is_early=True)
        token = self.tokens.by_secret(secret)
        if token is None:
            self.attempts.note(address)
            return Visitor(None, None, None)
        return Visitor(token.name, self._role(token.role), None)

    def _by_cookie(self, request: Request) -> Visitor:
        cookie = request.cookies.get(cookie_of(request), "")
        try:
            session = cast("dict[str, Any]", self._signer.loads(cookie, LIFETIME))
        except BadData:
            return self._stranger(secrets.token_urlsafe(24), is_new=True)
        token = self.tokens.by_name(session["name"] or "")
        if token is None:
            return self._stranger(session["csrf"])
        return Visitor(token.name, self._role(token.role), session["csrf"])

    def _stranger(self, csrf: str, *, is_new: bool = False) -> Visitor:
        if self.tokens:
            return Visitor(None, None, csrf, is_new)
        return Visitor(LOCAL, self._role(Role.WRITE), csrf, is_new)

    def _role(self, role: Role) -> Role:
        return role if self._may_write else Role.READ


def cookie_of(request: Request) -> str:
    """The name of this dashboard's cookie: browsers send cookies to every port of a host."""
    _, port = request.scope.get("server") or ("", None)
    return f"{COOKIE}_{port}" if port else COOKIE


def address_of(request: Request) -> str:
    """Where a request comes from."""
    return request.client.host if request.client else ""


def is_ours(visitor: Visitor, given: str) -> bool:
    """Whether a form came from a page of this visitor's."""
    return visitor.csrf is not None and hmac.compare_digest(visitor.csrf.encode(), given.encode())
