"""What a look comes to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from asynctaskd.durations import format_duration
from asynctaskd.postgres.driver import LoginRefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asynctaskd.errors import AsynctaskdError

Status = Literal["ok", "warning", "failure"]
OK: Status = "ok"
WARNING: Status = "warning"
FAILURE: Status = "failure"

REACHABLE = "reachable"
ACCESS = "access"

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: how it stands, and what to do where it isn't as it should be."""

    check: str
    status: Status
    message: str
    remedy: str | None = None

    @classmethod
    def unreachable(cls, error: AsynctaskdError) -> Finding:
        """The finding that ends all looking."""
        return cls(REACHABLE, FAILURE, str(error), "start the server, or correct database.url")

    @classmethod
    def refused(cls, error: AsynctaskdError) -> Finding:
        """The finding where the server answers and lets nobody in; what is about TLS says what to do."""
        if not isinstance(error, LoginRefusedError):
            return cls(ACCESS, FAILURE, str(error))
        remedy = "correct user, password and name in database.url, or that user's rights"
        return cls(ACCESS, FAILURE, str(error), remedy)

    def as_json(self) -> dict[str, str | None]:
        """The finding by its fields."""
        return {
            "check": self.check,
            "status": self.status,
            "message": self.message,
            "remedy": self.remedy,
        }


def listed(items: Sequence[str]) -> str:
    """The first few of them, and how many more there are."""
    more = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def lasting(seconds: float) -> str:
    """A length of time in whole seconds, or in milliseconds where it is shorter than one."""
    rounded = round(seconds) if seconds >= 1 else round(max(seconds, 0), 3)
    return format_duration(timedelta(seconds=rounded))
