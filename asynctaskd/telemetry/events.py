"""Emit and attach: how the stations tell what happened, without knowing who listens.

An event is a name (`task.failed`) and facts (keyword arguments). Subscribers are plain functions, called
at once on the emitter's thread: they must be quick and must not block.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Subscriber = Callable[[str, Mapping[str, Any]], None]
"""Takes the event's name and its facts; the facts are shared, so it must not change them."""


@dataclass(eq=False, slots=True)
class _Attachment:
    subscriber: Subscriber
    names: frozenset[str]
    but: frozenset[str]
    reported: bool = False  # owned by whoever emits; at worst two threads report once each

    def hears(self, name: str) -> bool:
        """Whether its subscriber is told of events of this name."""
        return name not in self.but and (not self.names or name in self.names)


# Both are replaced as a whole under the lock and only read by `emit`, which takes no lock.
_routes: dict[str, tuple[_Attachment, ...]] = {}
_others: tuple[_Attachment, ...] = ()  # who hears the names that nobody mentioned
_attachments: tuple[_Attachment, ...] = ()
_lock = threading.Lock()


def emit(event: str, /, **facts: Any) -> None:
    """Tell everybody who listens to `event`; costs next to nothing where nobody does.

    Never raises: a subscriber's error is logged once, and the others are told all the same.
    """
    for attachment in _routes.get(event, _others):
        try:
            attachment.subscriber(event, facts)
        except Exception:  # noqa: BLE001  (the subscriber's problem, not the emitter's)
            _report(attachment, event)


def attach(subscriber: Subscriber, *names: str, but: Iterable[str] = ()) -> Callable[[], None]:
    """Call `subscriber` for every event of these names (none given: of any name) except those in `but`.

    Returns:
        A function that detaches it again; calling it twice does no harm.
    """
    attachment = _Attachment(subscriber, frozenset(names), frozenset(but))
    with _lock:
        _rebuild((*_attachments, attachment))
    return lambda: _detach(attachment)


def is_watched(event: str) -> bool:
    """Whether anybody listens to `event`: ask before gathering facts that cost something."""
    return bool(_routes.get(event, _others))


def _detach(attachment: _Attachment) -> None:
    with _lock:
        _rebuild(tuple(other for other in _attachments if other is not attachment))


def _rebuild(attachments: tuple[_Attachment, ...]) -> None:
    global _attachments, _others, _routes  # noqa: PLW0603  (a process has one set)
    mentioned = {name for attachment in attachments for name in attachment.names | attachment.but}
    _attachments = attachments
    _others = tuple(attachment for attachment in attachments if not attachment.names)
    _routes = {name: tuple(a for a in attachments if a.hears(name)) for name in mentioned}


def _report(attachment: _Attachment, event: str) -> None:
    if attachment.reported:
        return
    attachment.reported = True
    logging.getLogger(__name__).exception(
        "a subscriber failed on %s and won't be reported again: %r", event, attachment.subscriber
    )
