"""The payloads of many requests: written and checked together where nothing speaks against it.

One call for a thousand payloads costs a third of a thousand calls. What it stumbles over is looked at one by
one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctaskd.definitions.payload import MAX_BYTES, dump_payload, dump_together
from asynctaskd.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asynctaskd.definitions.registry import App
    from asynctaskd.definitions.request import TaskRequest

_TOGETHER = 1_000

# Larger payloads, in characters: a jsonb value can't hold a thousand of the largest.
_LARGE_DOCUMENT = 8 * MAX_BYTES
_FEW_PAYLOADS = 8


def dump_many(requests: Sequence[TaskRequest], app: App | None) -> list[str]:
    """The payloads as JSON arrays, in order; with an app, as its definitions have them stored.

    Raises:
        InvalidInputError: a payload breaks a rule or doesn't fit, or a name is unknown; it says whose.
    """
    documents: list[str] = []
    for first in range(0, len(requests), _TOGETHER):
        some = requests[first : first + _TOGETHER]
        document = _dumped_together(some, app)
        documents.extend(_arrays(_dumped_each(some, app, first)) if document is None else (document,))
    return documents


def _dumped_together(requests: Sequence[TaskRequest], app: App | None) -> str | None:
    document = dump_together([request.payload for request in requests])
    if document is None or app is None:
        return document
    names = {request.name for request in requests}
    definition = app.get(names.pop()) if len(names) == 1 else None
    return document if definition is not None and definition.stores_as_given(document) else None


def _dumped_each(requests: Sequence[TaskRequest], app: App | None, first: int) -> list[str]:
    payloads: list[str] = []
    for place, request in enumerate(requests, first + 1):
        try:
            dump = dump_payload if app is None else app[request.name].dump
            payloads.append(dump(request.payload))
        except InvalidInputError as error:
            raise type(error)(f"request {place}: {error}") from None
    return payloads


def _arrays(payloads: list[str]) -> Iterator[str]:
    size = len(payloads) if sum(map(len, payloads)) <= _LARGE_DOCUMENT else _FEW_PAYLOADS
    for at in range(0, len(payloads), size):
        yield f"[{','.join(payloads[at : at + size])}]"
