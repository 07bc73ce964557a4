"""How is a mistake told? The words that every message about the configuration shares."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from datetime import timedelta

from asynctaskd.durations import format_duration

_CREDENTIALS = re.compile(r"://\S*@")  # of a URL that was given to the wrong key


def nearest(word: str, known: Iterable[str], pattern: str = "{}") -> str:
    """The end of a message about an unknown word: what was probably meant, or else all that is known."""
    near = difflib.get_close_matches(word, list(known), n=1)
    if near:
        return f"; did you mean {pattern.format(near[0])}?"
    return f"; known are {', '.join(map(pattern.format, known))}"


def shown(value: object) -> str:
    """The value as a message may quote it: short, and without a password."""
    text = format_duration(value) if isinstance(value, timedelta) else repr(value)
    text = _CREDENTIALS.sub("://***@", text)
    return text if len(text) <= 100 else f"{text[:100]}…"
