"""From a YAML file to values that know where they stand.

The values are JSON's, read by the core schema of YAML 1.2: `on`, `12:30` and `2024-01-01` are texts. What
YAML has beyond them (anchors, aliases, tags, several documents) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from asynctaskd.definitions.spec.problems import START, Place, Problems
from asynctaskd.definitions.text import is_storable, shown
from asynctaskd.errors import ConfigError

MAX_BYTES = 1_048_576
"""The largest file, in bytes (1 MiB)."""

MAX_LEVELS = 64
"""The deepest file, in levels of lists and mappings."""

# The parser that is written in C is fifteen times as fast; a wheel without it has the other.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _finite(text: str) -> object:
    number = float(text)
    return number if isfinite(number) else text


_PLAIN: tuple[tuple[re.Pattern[str], Callable[[str], object]], ...] = (
    (re.compile("null|Null|NULL|~|"), lambda text: None),
    (re.compile("true|True|TRUE"), lambda text: True),
    (re.compile("false|False|FALSE"), lambda text: False),
    (re.compile("[-+]?[0-9]{1,1000}"), int),
    (re.compile("0o[0-7]{1,1000}|0x[0-9a-fA-F]{1,1000}"), lambda text: int(text, 0)),
    (re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"), _finite),
)


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it stands.

    Attributes:
        value: a text, number, bool or None; a list of nodes; or a dict of nodes by key.
        place: where it begins.
        key: where its key begins, if it is a member of a mapping.
    """

    value: Any
    place: Place
    key: Place = START

    @property
    def plain(self) -> Any:
        """The value without places, as JSON would have it."""
        match self.value:
            case dict():
                return {key: member.plain for key, member in self.value.items()}
            case list():
                return [item.plain for item in self.value]
        return self.value

    @property
    def got(self) -> str:
        """What it is, for a message."""
        match self.value:
            case dict():
                return "a mapping"
            case list():
                return "a list"
            case None:
                return "nothing"
        return shown(self.value)


def inside(node: Node, path: Iterable[str | int]) -> Node:
    """The part of a value that a way of keys and positions leads to."""
    for step in path:
        node = node.value[step]
    return node


def read_source(path: Path, problems: Problems) -> Node:
    """Read a file; its problems are noted, and stand for nothing.

    Raises:
        ConfigError: it can't be read at all: no file, too large, no UTF-8, no YAML, or nothing in it.
    """
    text = _text(path)
    if unprintable := yaml.reader.Reader.NON_PRINTABLE.search(text):
        place = _place_of(text, unprintable.start())
        problems.stop(place, f"YAML has no character U+{ord(unprintable[0]):04X}")
    try:
        return _Reader(yaml.parse(text, _Loader), problems).document()
    except yaml.MarkedYAMLError as error:
        problems.stop(_place(error.problem_mark), f"this isn't YAML: {_reason(error)}")


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path}: is larger than {MAX_BYTES} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: isn't UTF-8 text (byte {error.start})") from None


class _Reader:
    """Makes nodes of the parser's events."""

    def __init__(self, events: Iterator[Any], problems: Problems) -> None:
        self._events = events
        self._problems = problems

    def document(self) -> Node:
        """The one document."""
        start = self._after(yaml.StreamStartEvent)
        if isinstance(start, yaml.StreamEndEvent):
            self._problems.stop(START, "the file is empty")
        node = self._node(next(self._events), 0)
        after = self._after(yaml.DocumentEndEvent)
        if not isinstance(after, yaml.StreamEndEvent):
            self._problems.refuse(_place(after.start_mark), "a file holds one document; here begins another")
        if node.value is None:
            self._problems.stop(node.place, "the file is empty")
        return node

    def _after(self, kind: type[yaml.Event]) -> Any:
        event = next(self._events)
        return next(self._events) if isinstance(event, kind) else event

    def _node(self, event: Any, level: int, key: Place = START) -> Node:
        place = _place(event.start_mark)
        if level > MAX_LEVELS:
            self._problems.stop(place, f"this is nested more than {MAX_LEVELS} levels deep")
        self._refuse_what_yaml_adds(event, place)
        match event:
            case yaml.MappingStartEvent():
                return Node(dict(self._members(level)), place, key)
            case yaml.SequenceStartEvent():
                return Node(list(self._items(level)), place, key)
            case yaml.ScalarEvent():
                return Node(self._scalar(event, place), place, key)
        return Node(None, place, key)

    def _items(self, level: int) -> Iterator[Node]:
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            yield self._node(event, level + 1)

    def _members(self, level: int) -> Iterator[tuple[str, Node]]:
        seen: dict[str, Place] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, level + 1)
            member = self._node(next(self._events), level + 1, key.place)
            if not isinstance(key.value, str):
                self._problems.refuse(key.place, f"a key must be text, got {key.got}")
            elif key.value in seen:
                first = seen[key.value].line
                self._problems.refuse(key.place, f"key {key.value!r} stands in line {first} already")
            else:
                seen[key.value] = key.place
                yield key.value, member

    def _scalar(self, event: Any, place: Place) -> object:
        if not is_storable(event.value):
            self._problems.refuse(place, "a text must hold no NUL character or lone surrogate")
        if event.style:  # it is quoted, or a block
            return event.value
        readings = (read for pattern, read in _PLAIN if pattern.fullmatch(event.value))
        return next(readings, str)(event.value)

    def _refuse_what_yaml_adds(self, event: Any, place: Place) -> None:
        if isinstance(event, yaml.AliasEvent):
            self._problems.refuse(place, "aliases aren't supported; a text that begins with * needs quotes")
        elif event.anchor is not None:
            self._problems.refuse(place, "anchors aren't supported; a text that begins with & needs quotes")
        elif event.tag is not None:
            self._problems.refuse(place, "tags aren't supported; a text that begins with ! needs quotes")


def _place(mark: Any) -> Place:
    return Place(mark.line + 1, mark.column + 1)


def _place_of(text: str, position: int) -> Place:
    before = text[:position]
    return Place(before.count("\n") + 1, position - before.rfind("\n"))


def _reason(error: yaml.MarkedYAMLError) -> str:
    return ", ".join(filter(None, (error.problem, error.context)))
