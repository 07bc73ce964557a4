"""Which values may the labels `task` and `schedule` have? Few, whatever comes in by SQL."""

from __future__ import annotations

from typing import Protocol

OTHER = "other"
"""What stands for every name that isn't told apart."""

_MOST_UNDECLARED = 200


class Declared(Protocol):
    """Knows which tasks there are: an App."""

    def declared_name(self, name: str) -> str | None:
        """The name or route under which a task is declared, or None."""
        ...


class FirstNames:
    """Turns a name into a label where nobody says which names there are: so many come first, then `other`."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def __call__(self, name: str) -> str:
        """The label of that name."""
        if name not in self._seen:
            if len(self._seen) >= _MOST_UNDECLARED:
                return OTHER
            self._seen.add(name)
        return name


class TaskNames:
    """Turns a task's name into a label: its own, its route's (`email:*`), or `other`."""

    def __init__(self, app: Declared | None) -> None:
        self._app = app
        self._undeclared = FirstNames()

    def __call__(self, name: str) -> str:
        """The label of a task of that name."""
        if self._app is not None:
            return self._app.declared_name(name) or OTHER
        return self._undeclared(name)
