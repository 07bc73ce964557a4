"""How far has a version of the runtime configuration come? Decided from what the live workers have
answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal
from uuid import UUID

Status = Literal["converged", "superseded", "not_converged"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What one live worker says.

    Attributes:
        worker_id: who it is.
        host: where it runs, as `hostname:pid`.
        applied: the version it applies.
        rejected: a version that it couldn't read, and `because` says why.
        finished: how many executions have ended since it is there, and `failed` how many of them failed.
        process: the process behind it, and `place` where that runs.
    """

    worker_id: UUID
    host: str
    applied: int
    rejected: int | None = None
    because: str | None = None
    finished: int = 0
    failed: int = 0
    process: UUID | None = None
    place: str | None = None


@dataclass(frozen=True, slots=True)
class Canary:
    """How a change went that one worker tried first.

    Attributes:
        worker: who tried it.
        outcome: `promoted`, `rolled_back` or `superseded`.
        because: why, in words.
    """

    worker: UUID
    outcome: str
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigReport:
    """What became of a change of the runtime configuration.

    Attributes:
        version: the version that was written; None where no worker has come to it.
        status: `converged` (no live worker lags), `superseded` (a newer version came) or `not_converged`.
        applied: the live workers that apply it, or a newer one.
        lagging: those that haven't answered.
        rejected: those that couldn't read it, with the reason.
        hosts: where each of these runs, as `hostname:pid`.
        canary: how the trial went, where one worker tried it first.
    """

    version: int | None
    status: Status
    applied: tuple[UUID, ...] = ()
    lagging: tuple[UUID, ...] = ()
    rejected: Mapping[UUID, str] = field(default_factory=dict[UUID, str])
    hosts: Mapping[UUID, str] = field(default_factory=dict[UUID, str])
    canary: Canary | None = None

    @property
    def is_final(self) -> bool:
        """Whether waiting longer changes nothing: nobody is left who could still answer."""
        return self.status != "not_converged" or not self.lagging

    def as_json(self) -> dict[str, Any]:
        """As the control task's result holds it."""
        canary = self.canary
        return {
            "version": self.version,
            "status": self.status,
            "applied": list(map(str, self.applied)),
            "lagging": list(map(str, self.lagging)),
            "rejected": {str(worker): why for worker, why in self.rejected.items()},
            "hosts": {str(worker): host for worker, host in self.hosts.items()},
            "canary": canary and asdict(canary) | {"worker": str(canary.worker)},
        }

    @classmethod
    def from_json(cls, result: Mapping[str, Any]) -> ConfigReport:
        """The report that a control task has left."""
        canary = result.get("canary")
        return cls(
            version=result["version"],
            status=result["status"],
            applied=tuple(map(UUID, result["applied"])),
            lagging=tuple(map(UUID, result["lagging"])),
            rejected={UUID(worker): why for worker, why in result["rejected"].items()},
            hosts={UUID(worker): host for worker, host in result.get("hosts", {}).items()},
            canary=canary and Canary(UUID(canary["worker"]), canary["outcome"], canary["because"]),
        )


def report_of(version: int | None, newest: int, answers: Sequence[Answer]) -> ConfigReport:
    """How far a version is, by the answers of those it is for; None: it isn't even written.

    `newest` is the newest version that is for all.
    """
    applied, lagging, rejected = list[UUID](), list[UUID](), dict[UUID, str]()
    for one in answers:
        if version is not None and one.applied >= version:
            applied.append(one.worker_id)
        elif version is not None and one.rejected is not None and one.rejected >= version:
            rejected[one.worker_id] = one.because or "it couldn't be read"
        else:
            lagging.append(one.worker_id)
    status: Status = "not_converged"
    if version is not None and newest > version:
        status = "superseded"
    elif version is not None and not lagging and not rejected:
        status = "converged"
    return ConfigReport(
        version=version,
        status=status,
        applied=tuple(applied),
        lagging=tuple(lagging),
        rejected=rejected,
        hosts={one.worker_id: one.host for one in answers},
    )


def trial_of(report: ConfigReport, worker: UUID) -> ConfigReport:
    """A report made while one worker tries a change: that is for nobody else yet, and not over."""
    return replace(
        report,
        status="not_converged",
        applied=tuple(one for one in report.applied if one == worker),
        lagging=tuple(one for one in report.lagging if one == worker),
        rejected={one: why for one, why in report.rejected.items() if one == worker},
    )
