"""A world before it begins: its workers, its tasks and its faults, all from one seed."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from random import Random
from typing import Any

from asynctaskd.scheduling.retry import NO_RETRY, RetryPolicy

POLICIES = (
    NO_RETRY,
    RetryPolicy("2s", max_attempts=2),
    RetryPolicy("1s,5s", max_attempts=3),
    RetryPolicy.exponential("1s", 3, "10s", max_attempts=4),
)

NAMES = ("mail", "thumbnail")
WEIGHTS = {"gold": 3, "blue": 1, "default": 2}

# What an execution may come to, and how often; an execution after the last that is written down completes.
_ACTS = ("complete",) * 6 + ("fail",) * 3 + ("transaction",) * 2
_RARE_ACTS = ("fatal", "quiet", "snooze", "overrun", "deaf", "deaf overrun", "kill", "kill thrice", "block")

_TASK_LABELS = ("", "", "gold", "blue", "blue,gold")
_WORKER_LABELS = ("", "gold", "blue")

# Traps wait for the worker's next call to the database; the rest happens at once.
TRAPS = (
    "refuse", "lose reply", "late", "slow", "crash before", "crash after", "crash at reply",
    "die in flight", "freeze at reply",
)  # fmt: skip
_FAULTS = (
    "crash", "freeze", "freeze", "freeze", "cut off", "cut off", "cut off",
    "stall", "stop", "restart", "outage", "jump",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """What is enqueued, and what its executions come to: (act, seconds) each."""

    at: float
    acts: tuple[tuple[str, float], ...]
    name: str = NAMES[0]
    label_set: str = ""
    priority: int = 0
    weight: int = 1
    delay: float = 0.0
    deadline: float | None = None
    timeout: float = 20.0
    policy: int = 0
    max_attempts: int | None = None
    has_hook: bool = False
    hook_fails: int = 0
    unique_tag: str | None = None
    until_finished: bool = False
    serial_key: str | None = None
    serial_id: int | None = None

    @property
    def limit(self) -> int:
        """How many executions may fail."""
        return POLICIES[self.policy].max_attempts if self.max_attempts is None else self.max_attempts


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """A worker, and the clock of the machine it is on."""

    labels: frozenset[str] = frozenset({"gold", "blue"})
    names: frozenset[str] = frozenset(NAMES)
    concurrency: int = 2
    strict_percentage: int = 100
    starts_at: float = 0.0
    clock_offset: float = 0.0
    clock_rate: float = 1.0
    wall_error: float = 0.0
    has_parent: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """Something goes wrong at a moment, to one worker or to the database, for some seconds."""

    at: float
    kind: str
    worker: int
    seconds: float
    times: int = 1


@dataclass(frozen=True, slots=True)
class Scenario:
    """All that happens, but for the order in which it does: that is the scheduler's, from its seed."""

    seed: int
    workers: tuple[WorkerSpec, ...]
    tasks: tuple[TaskSpec, ...]
    faults: tuple[Fault, ...] = ()
    weights: dict[str, int] = field(default_factory=lambda: WEIGHTS)
    look_seconds: float = 0.0
    limits: dict[str, int] = field(default_factory=dict)

    @property
    def quiet_from(self) -> float:
        """When the last fault is over."""
        return max((fault.at + fault.seconds for fault in self.faults), default=0.0)


def brief(thing: Any) -> str:
    """A spec or a fault by those of its fields that aren't what they usually are."""
    said = {one.name: getattr(thing, one.name) for one in fields(thing)}
    usual = {one.name: one.default for one in fields(thing)}
    words = [f"{name}={_short(value)}" for name, value in said.items() if value != usual[name]]
    return f"{type(thing).__name__}({', '.join(words)})"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_short, value))})"
    return ",".join(sorted(value)) if isinstance(value, frozenset) else str(value)


def plan(seed: int) -> Scenario:
    """The scenario of a seed."""
    rng = Random(seed)
    workers = tuple(_worker(rng, n) for n in range(1 + int(rng.random() * 3)))
    tasks = tuple(_task(rng) for _ in range(1 + int(rng.random() * 6)))
    faults = _faults(rng, len(workers))
    # An old snapshot is held: looks walk through what is dead, and claims go on from their cursors.
    look_seconds = 0.1 if rng.random() < 0.3 else 0.0
    limits = {label: _pick(rng, (1, 1, 2)) for label in _WORKER_LABELS[1:] if rng.random() < 0.3}
    return Scenario(seed, workers, tasks, faults, look_seconds=look_seconds, limits=limits)


def _worker(rng: Random, n: int) -> WorkerSpec:
    chance = rng.random
    # The first can run everything, so that everything can end.
    labels = _WORKER_LABELS if n == 0 or chance() < 0.7 else (_pick(rng, _WORKER_LABELS),)
    return WorkerSpec(
        labels=frozenset(label for label in labels if label),
        names=frozenset(NAMES if n == 0 or chance() < 0.8 else NAMES[:1]),
        concurrency=1 + int(chance() * 3),
        strict_percentage=_pick(rng, (0, 50, 100, 100)) if n else 100,
        starts_at=0.0 if chance() < 0.7 else chance() * 50,
        clock_offset=chance() * 1e6,
        clock_rate=1 + (chance() - 0.5) * 0.04,
        wall_error=(chance() - 0.5) * 7200,
        has_parent=chance() < 0.4,
    )


def _task(rng: Random) -> TaskSpec:
    chance = rng.random
    serial = chance() < 0.25
    tagged = chance() < 0.2
    has_hook = chance() < 0.4
    policy = int(chance() * len(POLICIES))
    return TaskSpec(
        at=0.0 if chance() < 0.4 else chance() * 25,
        acts=_acts(rng),
        name=NAMES[chance() < 0.2],
        label_set=_pick(rng, _TASK_LABELS),
        priority=_pick(rng, (0, 0, 0, 1, 5)),
        weight=_pick(rng, (1, 1, 2)),
        delay=0.0 if chance() < 0.85 else chance() * 10,
        deadline=None if chance() < 0.85 else chance() * 40,
        timeout=3 + chance() * 40,
        policy=policy,
        max_attempts=None if chance() < 0.9 else 1 + int(chance() * 3),
        has_hook=has_hook,
        hook_fails=int(chance() * 5) if has_hook and chance() < 0.3 else 0,
        unique_tag=_pick(rng, ("red", "green")) if tagged else None,
        until_finished=chance() < 0.5,
        serial_key="line" if serial else None,
        serial_id=_pick(rng, (None, 1, 2, 3)) if serial else None,
    )


def _acts(rng: Random) -> tuple[tuple[str, float], ...]:
    chance = rng.random
    acts: list[tuple[str, float]] = []
    for _ in range(1 + int(chance() * 3)):
        act = _pick(rng, _ACTS) if chance() < 0.7 else _pick(rng, _RARE_ACTS)
        seconds = chance() * 3 if chance() < 0.4 else chance() * 30
        acts += [("kill", seconds)] * 3 if act == "kill thrice" else [(act, seconds)]
    return tuple(acts)


def _faults(rng: Random, workers: int) -> tuple[Fault, ...]:
    faults: list[Fault] = []
    for _ in range(int(rng.random() * 6)):
        fault = _fault(rng, workers)
        if faults and rng.random() < 0.5:
            # Misfortunes seldom come alone: this one strikes the same worker just as the last one is over.
            last = faults[-1]
            at = last.at + (0.0 if last.kind in TRAPS[:4] else last.seconds) + rng.random() * 4
            fault = replace(fault, at=at, worker=last.worker)
        faults.append(fault)
    return tuple(faults)


def _fault(rng: Random, workers: int) -> Fault:
    chance = rng.random
    kind = _pick(rng, _FAULTS) if chance() < 0.55 else _pick(rng, TRAPS)
    seconds = chance() * 10 if chance() < 0.4 else chance() * 70
    times = 1 + int(chance() * 5) if kind in TRAPS[:4] else 1
    return Fault(chance() * 30, kind, int(chance() * workers), seconds, times)


def _pick(rng: Random, choices: tuple[Any, ...]) -> Any:
    return choices[int(rng.random() * len(choices))]
