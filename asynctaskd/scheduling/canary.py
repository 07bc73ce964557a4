"""Whether a worker that tries a change fails more often than it should: more than chance explains."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, lgamma

# How unlikely so many failures have to be, were there no difference.
_CHANCE = 0.01

_NEGLIGIBLE = 1e-12


@dataclass(frozen=True, slots=True)
class Tally:
    """How many executions have ended, and how many of them failed."""

    finished: int
    failed: int

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.finished + other.finished, self.failed + other.failed)

    def since(self, before: Tally) -> Tally:
        """What was added to an earlier count."""
        return Tally(max(self.finished - before.finished, 0), max(self.failed - before.failed, 0))

    def __str__(self) -> str:
        return f"{self.failed} of {self.finished}"


def is_worse(tried: Tally, others: Tally) -> bool:
    """Whether the share of failures in `tried` is larger than in `others`, beyond chance.

    By Fisher's exact test, one-sided: were both alike, so many of all failures would be among `tried` once in
    a hundred times at most. Where nothing was tried, or nothing is known of others, nothing is worse.
    """
    finished, failed = tried.finished + others.finished, tried.failed + others.failed
    if not tried.finished or not others.finished:
        return False
    if tried.failed * finished <= failed * tried.finished:  # no more than its part of the failures
        return False
    return _tail(tried.failed, tried.finished, failed, finished) < _CHANCE


def _tail(least: int, drawn: int, marked: int, total: int) -> float:
    """The probability that of `drawn` out of `total`, `marked` of which are marked, at least `least` are."""
    chance = 0.0
    for count in range(least, min(drawn, marked) + 1):
        term = exp(_choices(marked, count) + _choices(total - marked, drawn - count) - _choices(total, drawn))
        chance += term
        if term < chance * _NEGLIGIBLE:  # above its middle the distribution only falls
            break
    return chance


def _choices(total: int, chosen: int) -> float:
    """The logarithm of how many ways there are to choose so many."""
    return lgamma(total + 1) - lgamma(chosen + 1) - lgamma(total - chosen + 1)
