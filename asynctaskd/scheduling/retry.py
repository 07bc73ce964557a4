"""When a failed task runs again.

A policy has a text form, the same in Python, in SQL and on task rows:

    1m,2m,4m                    the nth entry follows the nth failure, the last one repeats
    exponential(1s, 2, 1h)      base, factor, longest
    linear(1s, 1m, 50)          from, to, in how many steps
    linear_1m                   the same as linear(1s, 1m, 50)
    linear_10m                  the same as linear(1m, 10m, 50)
    linear_1h                   the same as linear(10m, 1h, 50)

each of them with ` jitter 0.2` behind it where the jitter isn't the usual one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from inspect import iscoroutinefunction, signature
from typing import ClassVar

from asynctaskd.durations import DURATION_PATTERN, MAX_DURATION, format_duration, parse_duration
from asynctaskd.errors import InvalidInputError

_FACTOR_PATTERN = r"[1-9][0-9]{0,3}(?:\.[0-9]{1,6})?"
_STEPS_PATTERN = "(?:[2-9]|[1-9][0-9]{1,3})"
_JITTER_PATTERN = r"(?:0(?:\.[0-9]{1,6})?|1(?:\.0{1,6})?)"

SPEC_PATTERN = (
    r"\A(?:"
    f"{DURATION_PATTERN}(?:, *{DURATION_PATTERN})*"
    rf"|exponential\({DURATION_PATTERN}, *{_FACTOR_PATTERN}, *{DURATION_PATTERN}\)"
    rf"|linear\({DURATION_PATTERN}, *{DURATION_PATTERN}, *{_STEPS_PATTERN}\)"
    r"|linear_(?:1m|10m|1h)"
    rf")(?: jitter {_JITTER_PATTERN})?\Z"
)
"""The text form of a policy as one regular expression, for Python's `re` and PostgreSQL's `~` alike.

It leaves out what takes arithmetic: that no duration is longer than `durations.MAX_DURATION`, and that
the base of an exponential policy is longer than nothing and not longer than its longest delay.
"""

UNLIMITED = -1
"""As `max_attempts`: retry for ever."""

_MOST_ATTEMPTS = 2_147_483_647  # what the database's integer holds
_SPEC = re.compile(SPEC_PATTERN)
_PRESETS = {
    "linear_1m": "linear(1s, 1m, 50)",
    "linear_10m": "linear(1m, 10m, 50)",
    "linear_1h": "linear(10m, 1h, 50)",
}
_PRESET_NAMES = {spec: name for name, spec in _PRESETS.items()}

DelayFunction = Callable[[int], timedelta]
Interval = str | timedelta | Sequence[str | timedelta] | DelayFunction
Random = Callable[[], float]


@dataclass(frozen=True, slots=True)
class _Written:
    """Delays written out one by one; the last repeats."""

    delays: tuple[timedelta, ...]
    jitter: ClassVar[float] = 0.0

    @property
    def spec(self) -> str | None:
        return ",".join(format_duration(delay) for delay in self.delays)

    def __call__(self, failures: int) -> timedelta:
        return self.delays[min(failures, len(self.delays)) - 1]

    def bounds(self) -> tuple[timedelta, timedelta]:
        return min(self.delays), max(self.delays)


@dataclass(frozen=True, slots=True)
class _Exponential:
    """`base * factor ** (failures - 1)`, at most `longest`."""

    base: timedelta
    factor: float
    longest: timedelta
    jitter: ClassVar[float] = 0.1

    @property
    def spec(self) -> str | None:
        base, longest = format_duration(self.base), format_duration(self.longest)
        return f"exponential({base}, {_format_number(self.factor)}, {longest})"

    def __call__(self, failures: int) -> timedelta:
        try:
            return min(self.base * self.factor ** (failures - 1), self.longest)
        except OverflowError:
            return self.longest

    def bounds(self) -> tuple[timedelta, timedelta]:
        return self.base, self.longest


@dataclass(frozen=True, slots=True)
class _Linear:
    """`steps` delays in even distances, both ends included; the last repeats."""

    first: timedelta
    last: timedelta
    steps: int
    jitter: ClassVar[float] = 0.1

    @property
    def spec(self) -> str | None:
        spec = f"linear({format_duration(self.first)}, {format_duration(self.last)}, {self.steps})"
        return _PRESET_NAMES.get(spec, spec)

    def __call__(self, failures: int) -> timedelta:
        steps_taken = min(failures, self.steps) - 1
        return self.first + (self.last - self.first) * steps_taken / (self.steps - 1)

    def bounds(self) -> tuple[timedelta, timedelta]:
        return min(self.first, self.last), max(self.first, self.last)


@dataclass(frozen=True, slots=True)
class _Called:
    """Whatever the user's function says."""

    function: DelayFunction
    jitter: ClassVar[float] = 0.0
    spec: ClassVar[str | None] = None

    def __call__(self, failures: int) -> timedelta:
        delay = self._answer(failures)
        if not isinstance(delay, timedelta):
            raise InvalidInputError(f"{self._name} must return a timedelta, got {delay!r}")
        return _duration(delay, f"the delay of {self._name}")

    def bounds(self) -> tuple[timedelta, timedelta]:
        return timedelta(0), MAX_DURATION

    def _answer(self, failures: int) -> object:
        try:
            return self.function(failures)
        except BaseException as error:  # not even sys.exit() in it may end the daemon
            raise InvalidInputError(f"{self._name} raised {type(error).__name__}: {error}") from error

    @property
    def _name(self) -> str:
        return f"retry policy {getattr(self.function, '__qualname__', repr(self.function))}"


_Shape = _Written | _Exponential | _Linear | _Called


@dataclass(frozen=True, slots=True, init=False, repr=False)
class RetryPolicy:
    """How often a task is executed, and how long it waits between two executions.

    `RetryPolicy("1m,2m,4m", max_attempts=4)` waits 1, 2 and 4 minutes. The first argument is a text
    (a duration, a list of durations, or `exponential(1s, 2, 1h)`, `linear(1s, 1m, 50)`, `linear_1m`,
    `linear_10m`, `linear_1h`, each optionally followed by ` jitter 0.2`), a timedelta, a sequence of
    durations, or a function from the number of failures so far (1, 2, …) to a timedelta.

    Attributes:
        max_attempts: how many executions are allowed, the first included; -1 is unlimited, 0 is
            read as 1.
        jitter: from 0 to 1: a delay varies by this part of itself in both directions, but stays between
            the policy's shortest and its longest delay. By default 0.1 where delays are computed
            (exponential, linear), else 0. Kept to six decimals.

    Raises:
        InvalidInputError: the policy is malformed; the message names the value.
    """

    max_attempts: int
    jitter: float
    _shape: _Shape

    def __init__(self, interval: Interval, *, max_attempts: int = 10, jitter: float | None = None) -> None:
        shape, written = _shape_of(interval)
        wanted = written if jitter is None else jitter
        object.__setattr__(self, "_shape", shape)
        object.__setattr__(self, "max_attempts", _checked_attempts(max_attempts))
        object.__setattr__(self, "jitter", shape.jitter if wanted is None else _checked_jitter(wanted))

    @classmethod
    def exponential(
        cls,
        base: str | timedelta,
        factor: float,
        max: str | timedelta,  # noqa: A002  (the public name, beside `base` and `factor`)
        *,
        max_attempts: int = 10,
        jitter: float | None = None,
    ) -> RetryPolicy:
        """Wait `base` after the first failure, `factor` times as long after each more, at most `max`.

        `factor` is at least 1 and below 10000, kept to six decimals; `base` is longer than nothing and
        not longer than `max`.
        """
        return cls(_exponential(base, factor, max), max_attempts=max_attempts, jitter=jitter)

    @classmethod
    def linear(
        cls,
        from_: str | timedelta,
        to: str | timedelta,
        steps: int,
        *,
        max_attempts: int = 10,
        jitter: float | None = None,
    ) -> RetryPolicy:
        """Wait `from_` after the first failure and `to` after the `steps`-th and all that follow.

        The delays between the two ends lie in even distances; there are 2 to 9999 steps.
        """
        return cls(_linear(from_, to, steps), max_attempts=max_attempts, jitter=jitter)

    @classmethod
    def parse(cls, text: str, *, max_attempts: int = 10) -> RetryPolicy:
        """Read what `spec` wrote, or anything else in the text form."""
        return cls(text, max_attempts=max_attempts)

    @property
    def spec(self) -> str | None:
        """The text form, without `max_attempts`; None if the delays come from a function."""
        if self._shape.spec is None or self.jitter == self._shape.jitter:
            return self._shape.spec
        return f"{self._shape.spec} jitter {_format_number(self.jitter)}"

    def delay(self, failures: int, rng: Random) -> timedelta:
        """How long to wait after the nth failure, n = 1, 2, …; `rng` gives numbers from 0 to below 1.

        Raises:
            InvalidInputError: the policy's function raised, or returned what can't be a delay.
        """
        usual = self._shape(failures)
        lowest, highest = self._shape.bounds()
        # Drawn from what the range leaves, not cut off at its ends, where many delays would coincide.
        shortest, longest = max(lowest, usual * (1 - self.jitter)), min(highest, usual * (1 + self.jitter))
        return shortest + (longest - shortest) * rng()

    def __repr__(self) -> str:
        return f"RetryPolicy({self.spec or self._shape!r}, max_attempts={self.max_attempts})"


def _shape_of(interval: Interval) -> tuple[_Shape, float | None]:
    if isinstance(interval, str):
        return _read(interval)
    if isinstance(interval, timedelta):
        return _written([interval]), None
    if isinstance(interval, Sequence):
        return _written(interval), None
    return interval if isinstance(interval, _Shape) else _called(interval), None


def _read(text: str) -> tuple[_Shape, float | None]:
    if not _SPEC.match(text):
        raise InvalidInputError(
            f"malformed retry policy {text!r}: write it as 1m or 1m,2m,4m or exponential(1s, 2, 1h)"
            " or linear(1s, 1m, 50) or linear_1m, linear_10m, linear_1h"
        )
    shape, _, jitter = text.partition(" jitter ")
    return _read_shape(_PRESETS.get(shape, shape)), float(jitter) if jitter else None


def _read_shape(text: str) -> _Shape:
    kind, _, arguments = text.rstrip(")").rpartition("(")
    values = [value.strip() for value in arguments.split(",")]
    match kind:
        case "exponential":
            return _exponential(values[0], float(values[1]), values[2])
        case "linear":
            return _linear(values[0], values[1], int(values[2]))
        case _:
            return _written(values)


def _written(delays: Sequence[str | timedelta]) -> _Written:
    if not delays:
        raise InvalidInputError("a retry policy needs at least one interval, got none")
    return _Written(tuple(_duration(delay, "an interval of a retry policy") for delay in delays))


def _exponential(base: str | timedelta, factor: float, longest: str | timedelta) -> _Exponential:
    policy = _Exponential(
        _duration(base, "the base of a retry policy"),
        _checked_factor(factor),
        _duration(longest, "the longest delay of a retry policy"),
    )
    if not timedelta(0) < policy.base <= policy.longest:
        raise InvalidInputError(
            f"base of a retry policy must be longer than 0s and at most its longest delay, got {policy.spec}"
        )
    return policy


def _linear(first: str | timedelta, last: str | timedelta, steps: int) -> _Linear:
    if not _is_integer(steps) or not 2 <= steps <= 9999:
        raise InvalidInputError(f"steps of a retry policy must be an integer from 2 to 9999, got {steps!r}")
    where = "an end of a linear retry policy"
    return _Linear(_duration(first, where), _duration(last, where), steps)


def _called(function: DelayFunction) -> _Called:
    if not callable(function):
        raise InvalidInputError(
            f"a retry policy is a text, a timedelta, a sequence of these or a function, got {function!r}"
        )
    if iscoroutinefunction(function) or iscoroutinefunction(type(function).__call__):
        raise InvalidInputError(f"the function of a retry policy must not be async, got {function!r}")
    _check_takes_failures(function)
    return _Called(function)


def _check_takes_failures(function: DelayFunction) -> None:
    try:
        taken = signature(function)
    except ValueError:  # what is written in C tells nothing of its parameters
        return
    try:
        taken.bind(1)
    except TypeError as error:
        raise InvalidInputError(
            f"the function of a retry policy is called with the number of failures, got {function!r}: {error}"
        ) from None


def _duration(value: str | timedelta, what: str) -> timedelta:
    try:
        return parse_duration(value)
    except ValueError as error:
        raise InvalidInputError(f"{what}: {error}") from None


def _checked_attempts(value: int) -> int:
    if not _is_integer(value) or not UNLIMITED <= value <= _MOST_ATTEMPTS:
        raise InvalidInputError(
            f"max_attempts must be -1 (unlimited) or an integer from 0 to {_MOST_ATTEMPTS}, got {value!r}"
        )
    return value or 1


def _checked_jitter(value: float) -> float:
    if not _is_number(value) or not 0 <= value <= 1:
        raise InvalidInputError(f"jitter must be a number from 0 to 1, got {value!r}")
    return round(float(value), 6)


def _checked_factor(value: float) -> float:
    # Rounded first: what is written must be below the limit as well.
    if not _is_number(value) or not 1 <= round(value, 6) < 10_000:
        raise InvalidInputError(f"factor must be a number from 1 to below 10000, got {value!r}")
    return round(float(value), 6)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _format_number(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


NO_RETRY = RetryPolicy("0s", max_attempts=1)
"""One execution, and no other: what a task without a policy has."""
