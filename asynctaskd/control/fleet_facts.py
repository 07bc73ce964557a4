"""From what the database says of the fleet to values: pure functions."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from asynctaskd.config.runtime import read_leniently
from asynctaskd.control.fleet import (
    GroupState,
    HandlerState,
    LimitState,
    OpenCommand,
    Overview,
    StrictState,
    WorkerState,
)
from asynctaskd.scheduling.lanes import DEFAULT_GROUP, group_of, strict_cap

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from asynctaskd.config.runtime import RuntimeConfig

_STRICT = "!strict"  # what workers call the strict lane where they count claims
_OPEN = 100


def overview_of(facts: Mapping[str, Any]) -> Overview:
    """The document of `overview.sql` by its parts."""
    at = datetime.fromisoformat(facts["at"])
    config, problem = read_leniently(facts["config"])
    running = facts["running"]
    workers = [_worker(one, config, running) for one in facts["workers"]]
    return Overview(
        at=at,
        config=config,
        config_problem=problem,
        groups=_groups(facts["ready"], running, config, workers, at),
        strict=StrictState(
            ready=facts["strict"]["ready"],
            is_more=facts["strict"]["is_more"],
            running=sum(one["running"] for one in running if one["is_strict"]),
            cap=sum(worker.strict_cap for worker in workers),
            oldest=facts["strict"]["oldest"],
            oldest_age=_age(facts["strict"]["oldest_since"], at),
        ),
        workers=workers,
        limits=[
            LimitState(label=label, running=_running_with(label, running), limit=limit)
            for label, limit in sorted(config.limits.items())
        ],
        handlers=_handlers(running, facts["finished"], at),
        commands=[_command(one) for one in facts["commands"]],
        claims={UUID(one["id"]): one["claims"] for one in facts["workers"] if one["claims"] is not None},
    )


def compared(before: Overview, now: Overview) -> Overview:
    """The later snapshot with the shares that each group had of the claims since the earlier one."""
    claims = _claims_between(before, now)
    normal = sum(number for group, number in claims.items() if group != _STRICT)
    seconds = (now.at - before.at).total_seconds()
    groups = [replace(group, had=claims[group.name] / normal if normal else None) for group in now.groups]
    rate = sum(claims.values()) / seconds if now.claims and seconds > 0 else None
    return replace(now, groups=groups, rate=rate)


def _claims_between(before: Overview, now: Overview) -> Counter[str]:
    claims: Counter[str] = Counter()
    for worker, counts in now.claims.items():
        # Who tells for the first time was told to count since then.
        claims.update(counts)
        claims.subtract(before.claims.get(worker, {}))
    return +claims


def _worker(
    facts: Mapping[str, Any], config: RuntimeConfig, running: Iterable[Mapping[str, Any]]
) -> WorkerState:
    own = _OPEN if facts["max_strict_percentage"] is None else facts["max_strict_percentage"]
    held = [one for one in running if one["worker_id"] == facts["id"]]
    rejected, applied = facts["rejected_config_version"], facts["applied_config_version"]
    is_rejected = rejected is not None and rejected > applied
    return WorkerState(
        id=UUID(facts["id"]),
        name=UUID(facts["name"]),
        host=f"{facts['hostname']}:{facts['pid']}",
        labels=facts["labels"],
        running=sum(one["running"] for one in held),
        concurrency=facts["concurrency"],
        strict=sum(one["running"] for one in held if one["is_strict"]),
        strict_cap=strict_cap(facts["concurrency"], config.effective_strict_percentage(own)),
        silent=max(facts["silent"], 0.0),
        config_version=applied,
        rejected=rejected if is_rejected else None,
        rejected_because=facts["rejected_because"] if is_rejected else None,
        stall=facts["stall"],
    )


def _groups(
    ready: Sequence[Mapping[str, Any]],
    running: Sequence[Mapping[str, Any]],
    config: RuntimeConfig,
    workers: Collection[WorkerState],
    at: datetime,
) -> list[GroupState]:
    weights = {label: config.weights[label] for label in sorted(config.weights)}
    weights[DEFAULT_GROUP] = config.default_weight
    waiting, claimable = _by_group(ready, config), _claimable(ready, config, workers)
    at_work = _by_group([one for one in running if not one["is_strict"]], config)
    total = sum(weights[group] for group in claimable)
    groups: list[GroupState] = []
    for name, weight in weights.items():
        sets = waiting.get(name, [])
        oldest = min(sets, key=lambda one: one["oldest"], default=None)
        groups.append(
            GroupState(
                name=name,
                weight=weight,
                ready=sum(one["ready"] for one in sets),
                is_more=any(one["is_more"] for one in sets),
                running=sum(one["running"] for one in at_work.get(name, [])),
                oldest=None if oldest is None else oldest["oldest"],
                oldest_age=None if oldest is None else _age(oldest["oldest_since"], at),
                is_paused=name in config.paused_labels,
                wanted=weight / total if name in claimable else None,
            )
        )
    return groups


def _by_group(rows: Iterable[Mapping[str, Any]], config: RuntimeConfig) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(group_of(row["label_set"].split(","), config.weights), []).append(row)
    return groups


def _claimable(
    ready: Iterable[Mapping[str, Any]], config: RuntimeConfig, workers: Collection[WorkerState]
) -> set[str]:
    """The groups that have something ready that isn't paused and that some live worker may run."""
    offered = {frozenset(worker.labels) for worker in workers}
    paused = set(config.paused_labels)
    groups: set[str] = set()
    for row in ready:
        labels = _labels(row)
        if not labels & paused and any(labels <= some for some in offered):
            groups.add(group_of(row["label_set"].split(","), config.weights))
    return groups


def _running_with(label: str, running: Iterable[Mapping[str, Any]]) -> int:
    return sum(one["running"] for one in running if label in _labels(one))


def _labels(row: Mapping[str, Any]) -> set[str]:
    return set(filter(None, row["label_set"].split(",")))


def _handlers(
    running: Iterable[Mapping[str, Any]], finished: Iterable[Mapping[str, Any]], at: datetime
) -> list[HandlerState]:
    records = {one["name"]: one for one in finished}
    held: dict[str, list[Mapping[str, Any]]] = {}
    for one in running:
        held.setdefault(one["name"], []).append(one)
    handlers = [_handler(name, held.get(name, []), records.get(name, {}), at) for name in {*records, *held}]
    return sorted(handlers, key=lambda one: (-max(one.longest or 0.0, one.p95 or 0.0), one.name))


def _handler(
    name: str, held: Sequence[Mapping[str, Any]], record: Mapping[str, Any], at: datetime
) -> HandlerState:
    first = min(held, key=lambda one: datetime.fromisoformat(one["since"]), default=None)
    return HandlerState(
        name=name,
        running=sum(one["running"] for one in held),
        longest=None if first is None else _age(first["since"], at),
        longest_id=None if first is None else first["oldest"],
        finished=record.get("finished", 0),
        failed=record.get("failed", 0),
        mean=record.get("mean"),
        p95=record.get("p95"),
    )


def _command(facts: Mapping[str, Any]) -> OpenCommand:
    return OpenCommand(
        request_id=UUID(facts["request_id"]),
        action=facts["action"],
        requested_by=facts["requested_by"],
        requested_at=datetime.fromisoformat(facts["requested_at"]),
        open=facts["open"],
        workers=[UUID(one) for one in facts["workers"] or ()],
    )


def _age(since: str | None, at: datetime) -> float | None:
    return None if since is None else max((at - datetime.fromisoformat(since)).total_seconds(), 0.0)
