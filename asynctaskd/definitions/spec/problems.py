"""What is wrong with a file of definitions: all of it at once, each with its place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import NamedTuple, NoReturn

from asynctaskd.errors import ConfigError, InvalidInputError


class Place(NamedTuple):
    """Where something stands in a file; both count from 1."""

    line: int
    column: int


START = Place(1, 1)


class Problems:
    """What was found so far in one file."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._errors: list[tuple[Place, str]] = []
        self._warnings: list[tuple[Place, str]] = []

    @property
    def warnings(self) -> list[str]:
        """What is odd, in the order of the file: `tasks.yaml:3:5: …`."""
        return self._lines(self._warnings)

    def refuse(self, place: Place, message: str) -> None:
        """Something is wrong, so that nothing can be made of the file."""
        self._errors.append((place, message))

    def warn(self, place: Place, message: str) -> None:
        """Something is odd, and is passed over."""
        self._warnings.append((place, message))

    @contextmanager
    def at(self, place: Place) -> Iterator[None]:
        """Within the block, a value that breaks a rule is a problem of that place."""
        try:
            yield
        except InvalidInputError as error:
            self.refuse(place, str(error))

    def stop(self, place: Place, message: str) -> NoReturn:
        """Something is so wrong that the rest can't be read. Raises ConfigError with everything so far."""
        self.refuse(place, message)
        raise self._error()

    def raise_if_any(self) -> None:
        """Raise ConfigError where something is wrong; each line of its message is one problem."""
        if self._errors:
            raise self._error()

    def _error(self) -> ConfigError:
        return ConfigError("\n".join(self._lines(self._errors)))

    def _lines(self, found: list[tuple[Place, str]]) -> list[str]:
        return [f"{self._file}:{place.line}:{place.column}: {message}" for place, message in sorted(found)]


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about a word that isn't known: which one it may be."""
    found = get_close_matches(word, sorted(known), n=1, cutoff=0)
    return f"; the nearest known one is {found[0]!r}" if found else ""
