"""What holds for every request and every answer, whatever the page."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_READING = ("GET", "HEAD")

# In characters, with the query. Python reads no number of more than 4,300 digits.
_LONGEST_ADDRESS = 4000


class Guard:
    """Refuses foreign names and foreign pages, and sets the headers that protect a page.

    Args:
        hosts: the names by which the dashboard may be asked for, so that no other name can be pointed at it
            (DNS rebinding); None: any.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None) -> None:
        self._app = app
        self._hosts = None if hosts is None else frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, as an ASGI application does."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        app = self._app if refusal is None else PlainTextResponse(f"{refusal[1]}\n", refusal[0])
        await app(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if len(scope["path"]) + len(scope["query_string"]) > _LONGEST_ADDRESS:
            return 403, "this address is too long"
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            return 400, "this address has a NUL in it, which is in no text"
        if not _is_readable(f"//{host}") or not _is_readable(headers.get("origin", "")):
            return 403, "this request's Host or Origin is no address"
        if self._hosts is not None and _name(host) not in self._hosts:
            return 403, (
                "this name isn't one of the dashboard's: name it in dashboard.hosts (--allow-host), if it is"
            )
        if scope["method"] not in _READING and not _is_same_origin(headers, f"{scope['scheme']}://{host}"):
            return 403, (
                "this request comes from another page, or through a proxy that doesn't say X-Forwarded-Proto"
            )
        return None


def _is_readable(address: str) -> bool:
    try:
        urlsplit(address)
    except ValueError:  # such as half an IPv6 address
        return False
    return True


def _name(host: str) -> str:
    return (urlsplit(f"//{host}").hostname or "").lower()


def _is_same_origin(headers: Headers, ours: str) -> bool:
    """Whether a request comes from a page of ours, or from no page at all but with a token of its own.

    A browser tells where a form comes from; of one that doesn't nothing is taken.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site not in (None, "same-origin"):
        return False
    if origin is not None:
        return origin.lower() == ours.lower()
    return site is not None or headers.get("authorization", "")[:7].lower() == "bearer "
