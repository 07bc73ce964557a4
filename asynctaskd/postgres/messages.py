"""Messages between the fleet and those who steer it: `{"op": …, "params": {…}}`, carried by notices.

A message only hurries: what is to be done stands in rows. So an op that nobody knows is passed over, and what
can't be read is told and otherwise left alone.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from asynctaskd.telemetry.events import emit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Params = dict[str, Any]


def hearing(acts: Mapping[str, Callable[[Params], None]]) -> Callable[[str], None]:
    """What a listener calls with a notice's payload: the act of its op, with the params."""

    def hear(payload: str) -> None:
        message = _read(payload) or {}
        act = acts.get(str(message.get("op")))
        if act is not None:
            params = message.get("params")
            act(cast("Params", params) if isinstance(params, dict) else {})

    return hear


def _read(payload: str) -> Params | None:
    try:
        message = json.loads(payload)
    except (ValueError, RecursionError) as error:
        emit("notice.unreadable", error=str(error))
        return None
    if not isinstance(message, dict):
        emit("notice.unreadable", error="it isn't an object")
        return None
    return cast("Params", message)
