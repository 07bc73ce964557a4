"""What a service's reply comes to: a result, or one of the errors that a handler may raise."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
from pydantic_core import from_json

from asynctaskd.definitions.remote.document import MAX_RESULT
from asynctaskd.errors import FatalTaskError, RemoteTaskError, RetryQuietlyError, SnoozeTask

_EXCERPT = 500  # bytes
_SHORTEST_SNOOZE, _LONGEST_SNOOZE = timedelta(seconds=1), timedelta(days=1)


async def result_of(response: httpx.Response) -> Any:
    """The result that a streamed reply brings; its headers decide first, then its status.

    Raises:
        FatalTaskError, SnoozeTask, RetryQuietlyError: a header says so, or `Retry-After` with 429 or 503.
        RemoteTaskError: a header or the status tells of an error, or the reply can't be read.
    """
    _obey(response.headers)
    if response.is_success:
        return _decoded(response, await _body(response))
    _snooze_if_busy(response)
    excerpt = (await _beginning(response)).decode(errors="replace")
    redirect = "; redirects aren't followed" if response.has_redirect_location else ""
    raise RemoteTaskError(f"the service answered {response.status_code}{redirect}: {excerpt}")


def _obey(headers: httpx.Headers) -> None:
    if (why := headers.get("Asynctaskd-Terminate")) is not None:
        raise FatalTaskError(why)
    if (delay := headers.get("Asynctaskd-Snooze")) is not None:
        raise _snooze(delay)
    if (why := headers.get("Asynctaskd-Retry-Quietly")) is not None:
        raise RetryQuietlyError(why)
    if (why := headers.get("Asynctaskd-Error")) is not None:
        raise RemoteTaskError(why)


def _snooze(delay: str) -> Exception:
    try:
        return SnoozeTask(delay)
    except ValueError as error:
        return RemoteTaskError(f"the service answered with an Asynctaskd-Snooze that can't be read: {error}")


def _snooze_if_busy(response: httpx.Response) -> None:
    wanted = response.headers.get("Retry-After") if response.status_code in (429, 503) else None
    delay = None if wanted is None else _delay_in(wanted.strip())
    if delay is not None:
        raise SnoozeTask(min(max(delay, _SHORTEST_SNOOZE), _LONGEST_SNOOZE))


def _delay_in(retry_after: str) -> timedelta | None:
    if re.fullmatch("[0-9]{1,9}", retry_after):
        return timedelta(seconds=int(retry_after))
    with suppress(ValueError, OverflowError):
        moment = parsedate_to_datetime(retry_after)
        # A date without a zone is in UTC, as HTTP has it.
        return moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)
    return None


async def _body(response: httpx.Response) -> bytes:
    if response.headers.get("Content-Encoding", "").strip().lower() not in ("", "identity"):
        raise RemoteTaskError("the service compressed its reply, though it was asked not to")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_RESULT:
            raise RemoteTaskError(f"the service's reply is larger than {MAX_RESULT} bytes")
    return bytes(body)


async def _beginning(response: httpx.Response) -> bytes:
    body = b""
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) >= _EXCERPT:
            break
    return body[:_EXCERPT]


def _decoded(response: httpx.Response, body: bytes) -> Any:
    if not body:
        return None
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        return _text(body, response.charset_encoding or "utf-8")
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise RemoteTaskError(f"the service answered with JSON that can't be read: {error}") from None


def _text(body: bytes, charset: str) -> str:
    """What the service has done is done: a charset that nobody knows makes no error of it."""
    with suppress(LookupError, ValueError):
        return body.decode(charset, errors="replace")
    return body.decode(errors="replace")
