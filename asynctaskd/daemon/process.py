"""This process, as the database and its parent know it.

A parent (`run --processes N`) tells its child through one variable of the environment which process it is,
where to beat, and where to read orders. Orders come through a pipe, not as signals: systemd and terminals
send signals to children as well, and what was said twice must not count twice. The end of the pipe is an
order too, so that no child outlives its parent by more than it takes to drain. Only who runs a suspect
goes on without its parent: the suspect may be innocent of that death.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from asynctaskd.daemon.proof import hold_name, place

if TYPE_CHECKING:
    import socket

VARIABLE = "_ASYNCTASKD_CHILD"
"""Private, between a parent and its children; it begins so that it can't be mistaken for a setting."""


DRAIN, HURRY, RELOAD = 1, 2, 3
"""What a parent may order: stop claiming and drain; give up what runs; read the configuration again."""


@dataclass(frozen=True, slots=True, eq=False)
class Process:
    """One process: its name, and what ties it to its parent.

    Attributes:
        id: what `workers.process` says of all its identities.
        nth: which of several children it is; None where it has no siblings.
        suspects_of: the labels of the worker in whose place it runs one suspect and ends; else None.
    """

    id: UUID
    nth: int | None = None
    suspects_of: list[str] | None = None
    _pulse: int | None = None
    _orders: int | None = None
    _name: socket.socket | None = None

    @property
    def place(self) -> str | None:
        """Where it runs; None where its death couldn't be proven."""
        return None if self._name is None else place()

    @property
    def has_parent(self) -> bool:
        """Whether a parent of ours watches it."""
        return self._orders is not None

    def beat(self) -> None:
        """Tell the parent, if there is one, that this process isn't stuck. From any thread; never waits."""
        self._tell_parent(b".")

    def report(self, report: Mapping[str, Any]) -> None:
        """Tell the parent, if there is one, how this process is. From any thread; never waits."""
        if self._pulse is not None:
            self._tell_parent(json.dumps(report).encode() + b"\n")

    def _tell_parent(self, what: bytes) -> None:
        if self._pulse is not None:
            with suppress(OSError):  # the parent is gone, or has not looked for hours
                os.write(self._pulse, what)

    def orders(self) -> Iterator[int]:
        """What the parent says, as it says it (it blocks): one of the three; its end may say `DRAIN`."""
        if self._orders is not None:
            while told := os.read(self._orders, 1):
                yield told[0]
            if self.suspects_of is None:
                yield DRAIN


def child_variable(process: UUID, *, pulse: int, orders: int, **role: Any) -> dict[str, str]:
    """What a parent puts into the environment of a child; both descriptors are inherited by it."""
    return {VARIABLE: json.dumps({"process": str(process), "pulse": pulse, "orders": orders, **role})}


@cache
def this_process() -> Process:
    """The process we are in. The first call, before any program is started, decides it."""
    # Taken out: a program that a handler starts is no child of our parent's.
    told = os.environ.pop(VARIABLE, None)
    return _alone() if told is None else _child(json.loads(told))


def _alone() -> Process:
    process = uuid4()
    return Process(process, _name=hold_name(process))


def _child(told: Mapping[str, Any]) -> Process:
    process = UUID(told["process"])
    pulse, orders = told["pulse"], told["orders"]
    for descriptor in (pulse, orders):
        os.set_inheritable(descriptor, False)
    return Process(process, told.get("nth"), told.get("suspects_of"), pulse, orders, hold_name(process))
