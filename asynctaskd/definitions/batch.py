"""The payloads of many requests: each is written once, and they are checked together where that will do.

One check of a thousand payloads costs half of a thousand checks. Where something speaks against it, each is
checked by itself: validators then see what they have seen already once more.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING

from asynctaskd.definitions.payload import MAX_BYTES, are_unsuspicious, checked, dump_payload, write_payload
from asynctaskd.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asynctaskd.definitions.registry import Registry
    from asynctaskd.definitions.request import TaskRequest

# Few enough that a bad one costs little, many enough that one call for all costs nothing.
_TOGETHER = 1_000

# In bytes. A jsonb value holds 256 MiB, a thousand of the largest payloads don't fit.
_LARGE_DOCUMENT = 8 * MAX_BYTES
_FEW_PAYLOADS = 8


def dump_many(requests: Sequence[TaskRequest], app: Registry | None) -> list[str]:
    """The payloads as JSON arrays, in order; with an app, as its definitions have them stored.

    Raises:
        InvalidInputError: a payload breaks a rule or doesn't fit, or a name is unknown; it says whose.
    """
    documents: list[str] = []
    for first in range(0, len(requests), _TOGETHER):
        some = requests[first : first + _TOGETHER]
        written = _write(some)
        document = _checked_together(some, written, app)
        documents += _arrays(_checked_each(some, written, app, first)) if document is None else [document]
    return documents


def _write(requests: Sequence[TaskRequest]) -> list[bytes]:
    """The payloads up to the first that can't be written: those before it have to be checked all the same."""
    written: list[bytes] = []
    try:
        for request in requests:
            written.append(write_payload(request.payload))  # noqa: PERF401  (what was written is kept)
    except InvalidInputError:
        pass
    return written


def _checked_together(
    requests: Sequence[TaskRequest], written: Sequence[bytes], app: Registry | None
) -> str | None:
    size = sum(map(len, written))
    if len(written) < len(requests) or size > _LARGE_DOCUMENT or not are_unsuspicious(written):
        return None
    document = f"[{b','.join(written).decode()}]"
    if app is None:
        return document
    names = {request.name for request in requests}
    definition = app.get(names.pop()) if len(names) == 1 else None
    return document if definition is not None and definition.stores_as_given(document) else None


def _checked_each(
    requests: Sequence[TaskRequest], written: Sequence[bytes], app: Registry | None, first: int
) -> list[str]:
    payloads: list[str] = []
    for request, data in zip_longest(requests, written):
        try:
            definition = None if app is None else app[request.name]
            if definition is not None and definition.tags_types:  # which what was written lacks
                payloads.append(definition.dump(request.payload))
                continue
            text = dump_payload(request.payload) if data is None else checked(data, request.payload)
            payloads.append(text if definition is None else definition.stored(text))
        except InvalidInputError as error:
            raise type(error)(f"request {first + len(payloads) + 1}: {error}") from None
    return payloads


def _arrays(payloads: list[str]) -> Iterator[str]:
    size = len(payloads) if sum(map(len, payloads)) <= _LARGE_DOCUMENT else _FEW_PAYLOADS
    for at in range(0, len(payloads), size):
        yield f"[{','.join(payloads[at : at + size])}]"
