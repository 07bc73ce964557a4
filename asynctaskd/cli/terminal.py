"""Single keys from a terminal."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ARROWS = {"A": "up", "B": "down"}
_NAMES = {"\r": "enter", "\n": "enter", "\x1b": "escape"}


@contextmanager
def each_key(act: Callable[[str], None]) -> Iterator[None]:
    """Within the block, call `act` with each key: a character, or `up`, `down`, `enter` or `escape`."""
    terminal = sys.stdin.fileno()
    loop = asyncio.get_running_loop()
    before = termios.tcgetattr(terminal)

    def read() -> None:
        for key in keys_of(os.read(terminal, 1024).decode(errors="ignore")):
            act(key)

    tty.setcbreak(terminal)  # and not raw: Ctrl-C stays a signal
    loop.add_reader(terminal, read)
    try:
        yield
    finally:
        loop.remove_reader(terminal)
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def keys_of(text: str) -> list[str]:
    """The keys behind what a terminal sent; sequences that mean nothing here are left out."""
    keys: list[str] = []
    while text:
        if text[:2] in ("\x1b[", "\x1bO"):
            end = next(
                (place for place in range(2, len(text)) if text[place].isalpha() or text[place] == "~"), 2
            )
            keys += [_ARROWS[text[end]]] if text[end : end + 1] in _ARROWS else []
            text = text[end + 1 :]
        else:
            keys.append(_NAMES.get(text[0], text[0]))
            text = text[1:]
    return keys
