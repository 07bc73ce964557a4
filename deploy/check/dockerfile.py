"""A Dockerfile as stages of instructions."""

from __future__ import annotations

import json
from pathlib import Path

from dockerfile_parse import DockerfileParser

Stage = list[tuple[str, str]]
"""The instructions of a stage with their values, comments left out."""


def stages(dockerfile: Path) -> list[Stage]:
    """All stages, the final one last."""
    found: list[Stage] = []
    for step in DockerfileParser(str(dockerfile)).structure:
        if step["instruction"] == "FROM":
            found.append([])
        if found and step["instruction"] != "COMMENT":
            found[-1].append((step["instruction"], step["value"]))
    return found


def last(stage: Stage, instruction: str) -> str:
    """What an instruction says the last time; an empty text where it isn't there."""
    return next((value for name, value in reversed(stage) if name == instruction), "")


def words(value: str) -> list[str] | None:
    """The words of `["program", "argument"]`; None where it is written so that it takes a shell."""
    try:
        found = json.loads(value)
    except ValueError:
        return None
    return found if isinstance(found, list) and all(isinstance(word, str) for word in found) else None
