"""What a mutant is, and how it is put in the place of what is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import asyncpg

from asynctaskd.postgres import driver

Patch = Callable[[], None]


@dataclass(frozen=True)
class Mutant:
    """A mistake: what it is, the invariants that must catch it, and the faults that bring it to light."""

    name: str
    what: str
    caught_by: frozenset[str]
    faults: tuple[str, ...]
    patch: Patch | None = None
    statement: str = ""
    is_steered: bool = False
    """Whether an operator steers meanwhile."""

    def apply(self) -> None:
        """Make the mistake in this process."""
        if self.patch is not None:
            self.patch()

    async def prepare(self, dsn: str) -> None:
        """Make the mistake in a migrated database, where it belongs there."""
        if not self.statement:
            return
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute(self.statement)
        finally:
            await connection.close()


def rewrite(name: str, *changes: tuple[str, str]) -> Patch:
    """Change the text of a query; each old part must be there."""

    def patch() -> None:
        right = driver.query.__wrapped__(name, "asynctaskd")
        wrong = right
        for old, new in changes:
            if old not in wrong:
                raise LookupError(f"{name}.sql has changed, and the mutant no longer fits: {old!r} is gone")
            wrong = wrong.replace(old, new)
        render = driver.render
        driver.render = lambda sql, schema: render(wrong if sql == right else sql, schema)
        driver.query.cache_clear()

    return patch


def together(*patches: Patch) -> Patch:
    """Several patches as one."""

    def patch() -> None:
        for one in patches:
            one()

    return patch


def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> Patch:
    """Put `make(what is there)` in the place of an attribute, which must exist."""

    def patch() -> None:
        setattr(owner, name, make(getattr(owner, name)))

    return patch
