"""How is a line written down? As JSON, or for people."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import TextIO

import structlog
from structlog.typing import EventDict

Renderer = Callable[[EventDict], str]


def renderer_for(format_: str, stream: TextIO) -> Renderer:
    """What turns a line into text for this stream, by the value of the key log.format."""
    on_terminal = stream.isatty()
    if format_ == "json" or (format_ == "auto" and not on_terminal):
        return _render_json
    return _console(colors=on_terminal and not os.environ.get("NO_COLOR"))


def _render_json(line: EventDict) -> str:
    return json.dumps(line, ensure_ascii=False, separators=(",", ":"))


def _console(*, colors: bool) -> Renderer:
    render = structlog.dev.ConsoleRenderer(colors=colors, timestamp_key="ts", sort_keys=False)

    def rendered(line: EventDict) -> str:
        stack = line.pop("traceback", None)
        text = str(render(None, line["level"], line))
        return text if stack is None else f"{text}\n{_indented(stack)}"

    return rendered


def _indented(stack: str) -> str:
    """Every line of it indented, so that none can pass for a line of the log."""
    return "\n".join(f"    {line}" for line in stack.splitlines())
