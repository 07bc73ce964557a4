"""How long a worker may believe that its claims stand: pure, over a monotonic clock in seconds.

The lease itself ends by the database's clock, which counts from some moment between the worker's question and
the answer. So the worker counts from before the question, and stops early enough to have stopped when others
may take its tasks.
"""

from __future__ import annotations

from dataclasses import dataclass

# Executions are cancelled this share of a lease after its beginning …
_FENCE = 0.8

# … and a process that could not obey by then is ended.
_LAST = 0.95


@dataclass(frozen=True, slots=True)
class LeaseTerm:
    """One renewal: `asked_at` by a monotonic clock, `length` in seconds."""

    asked_at: float
    length: float

    @property
    def fence_at(self) -> float:
        """From then on nothing is claimed any more, and what runs is told to stop."""
        return self.asked_at + _FENCE * self.length

    @property
    def last_at(self) -> float:
        """Until then what runs has to have stopped."""
        return self.asked_at + _LAST * self.length

    def stands(self, now: float) -> bool:
        """Whether claims may be relied on."""
        return now < self.fence_at


def may_judge(now: float, cut_off_at: float | None, lease: float) -> bool:
    """Whether a worker may declare others lost.

    Not within one lease after it lost the database itself (`cut_off_at`, None: never): the others could
    not renew their leases either.
    """
    return cut_off_at is None or now >= cut_off_at + lease
