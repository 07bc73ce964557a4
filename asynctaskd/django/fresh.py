"""Django's connections in a worker's threads: as at the beginning and the end of a request."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.db import close_old_connections

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asynctaskd.definitions.registry import Registry
    from asynctaskd.definitions.signature import Call


@contextmanager
def fresh_connections() -> Iterator[None]:
    """None is used within the block that has grown too old or is broken, and none such is left behind."""
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


def refresh_connections(app: Registry) -> None:
    """Have every handler of an App that runs in a thread begin and end so."""
    for definition in app.definitions.values():
        if definition.is_sync:
            definition.call = _with_fresh_connections(definition.call)


def _with_fresh_connections(call: Call) -> Call:
    def called(bound: Any, ctx: Any) -> Any:
        with fresh_connections():
            return call(bound, ctx)

    return called
