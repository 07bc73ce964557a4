"""Whose line is it? A handler's, known by its context, in its threads and asyncio tasks too."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Protocol


class Speaker(Protocol):
    """An execution, as far as the log wants to know it."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What each of its lines says: which task, which attempt, and whose."""
        ...


current_speaker: ContextVar[Speaker] = ContextVar("asynctaskd_execution")
"""Who speaks in this context; without a value, the process itself does."""


def speaker_facts() -> Mapping[str, Any]:
    """What a line of this context says of who speaks."""
    speaker = current_speaker.get(None)
    return {} if speaker is None else speaker.facts
