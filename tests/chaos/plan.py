"""What will be broken, and when: a pure function of the seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

LEASE = 6.0
"""Seconds. Long enough that a server's crash and a failover (1 to 3 s) end within it, short enough that a run
of four minutes holds faults that outlast it many times over. Renewals come each second: six tries a lease."""

GRACE = 3.0
"""Seconds that a worker has to finish after SIGTERM: some tasks end within it, some are put back."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: how often it comes in proportion to the others, whom it hits, and for how long."""

    weight: int
    target: str = "worker"  # or fleet, or server
    seconds: tuple[float, float] = (0.0, 0.0)
    choices: Mapping[str, Sequence[Any]] = field(default_factory=dict)


KINDS: dict[str, Kind] = {
    # processes
    "kill": Kind(10),
    "kill_all": Kind(1, "fleet"),
    "kill_child": Kind(6, "parent"),
    "kill_release": Kind(3),
    "terminate": Kind(6),
    "terminate_twice": Kind(4, seconds=(0.1, 1.5)),
    "freeze_short": Kind(3, seconds=(0.5, 3.0)),
    "freeze_long": Kind(5, seconds=(LEASE * 1.3, LEASE * 2)),
    # one worker's network
    "partition_short": Kind(3, seconds=(0.5, 3.0), choices={"style": ["cut", "silent"]}),
    "partition_long": Kind(6, seconds=(LEASE * 1.3, LEASE * 2), choices={"style": ["cut", "silent"]}),
    "half_open": Kind(4, seconds=(LEASE * 2, LEASE * 3)),
    "deaf": Kind(3, seconds=(LEASE, LEASE * 3)),
    "refuse": Kind(2, seconds=(1.0, 6.0)),
    "delay": Kind(3, seconds=(2.0, 6.0), choices={"by": [0.02, 0.1, 0.4]}),
    "swallow": Kind(
        12,
        seconds=(3.0, 8.0),
        choices={"what": ["commit", "claim", "finalize", "renew", "any"], "then": ["cut", "freeze"]},
    ),
    "lose_request": Kind(
        4,
        seconds=(3.0, 8.0),
        choices={"what": ["commit", "claim", "finalize", "renew"], "then": ["cut", "freeze"]},
    ),
    "read_only": Kind(2, seconds=(1.0, 4.0)),
    # the server
    "backends_all": Kind(3, "server"),
    "backends_one": Kind(5, "server"),
    "backends_listen": Kind(3, "server"),
    "server_crash": Kind(3, "server", seconds=(0.0, 2.0)),
    "failover": Kind(3, "server", choices={"early": [False, True]}),
    "lock_table": Kind(3, "server", seconds=(0.5, 4.0)),
    "lock_rows": Kind(4, "server", seconds=(0.5, 4.0)),
    # the applications
    "burst": Kind(4, "enqueuer", choices={"tasks": [20, 50, 100]}),
    "swallow_enqueue": Kind(3, "enqueuer", seconds=(3.0, 8.0), choices={"then": ["cut", "freeze"]}),
}

_WITNESSED = ("kill_child", "kill_release")


@dataclass(frozen=True, slots=True)
class Event:
    """One fault: its number, when it comes (seconds from the start), whom it hits, and for how long."""

    number: int
    at: float
    kind: str
    target: str
    seconds: float
    details: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self)


def make_plan(
    seed: int,
    *,
    events: int,
    seconds: float,
    workers: Sequence[str],
    parents: Sequence[str] = (),
    kinds: Sequence[str] = (),
) -> list[Event]:
    """The events of a run, by time.

    Every kind comes once before chance decides, as far as there are events. `kinds` restricts the plan to
    those; `parents` are workers that have child processes, without which no death is witnessed.
    """
    random = Random(seed)
    possible = {name: KINDS[name] for name in kinds or KINDS if parents or name not in _WITNESSED}
    names = list(possible)
    drawn = random.sample(names, len(names))[:events]  # chance may take its time
    drawn += random.choices(names, [kind.weight for kind in possible.values()], k=events - len(drawn))
    random.shuffle(drawn)
    times = sorted(random.uniform(0.0, seconds) for _ in drawn)
    return [
        _event(random, number, at, name, workers, parents)
        for number, (at, name) in enumerate(zip(times, drawn, strict=True), start=1)
    ]


def _event(
    random: Random, number: int, at: float, name: str, workers: Sequence[str], parents: Sequence[str]
) -> Event:
    kind = KINDS[name]
    targets = {"worker": workers, "parent": parents}.get(kind.target, [kind.target])
    details = {option: random.choice(values) for option, values in kind.choices.items()}
    lasts = round(random.uniform(*kind.seconds), 2)
    return Event(number, round(at, 2), name, random.choice(list(targets)), lasts, details)
