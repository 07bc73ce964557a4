"""How long things took in a run: the figures that the promises are held against."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from tests.chaos.by_time import idle_spans
from tests.chaos.by_witness import duplicates
from tests.chaos.history import History, merged, without
from tests.chaos.records import Claim, Fault, Span, Story

_CUTS_EVERYONE = frozenset({"restart", "failover"})
_LOCKS = frozenset({"lock_table", "lock_rows"})
"""Somebody else has the rows: nobody can put them back meanwhile."""

_LISTEN = frozenset({"listen_broken"})

_NO_CUT = _LISTEN | {"delay"}
"""Faults after which a worker still knows what the database says."""

_LISTENS_AGAIN = 3.0
"""How long LISTEN counts as broken where nobody noted when it worked again, in seconds."""


_COMES_WITHIN = 1.0
"""How long after a server's return the first task may come that could be claimed, in seconds."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One duration, measured `count` times, in seconds. `held` is None where there was nothing to measure."""

    name: str
    count: int
    p50: float | None
    p99: float | None
    p100: float | None
    bound: float
    bounded: str  # p99 or p100
    held: bool | None


def measure(history: History) -> list[Figure]:
    """Every figure of the run."""
    lease = history.settings.lease
    alone, parented = _kills(history, parent=False), _kills(history, parent=True)
    return [
        _running_again("kill -9 → running again", history, alone, lease + 1.5, "p100"),
        _running_again("kill -9 under a parent → running again", history, parented, 2.0, "p99"),
        _figure("told to let go → claimed elsewhere", _handed_over(history), 2.0, "p100"),
        _figure("database accepting → claiming", _claiming_again(history), 5.0, "p99"),
        _figure("half-open connection → found", _found(history), 10.0, "p100"),
        _figure("wake-up while LISTEN was broken", _deaf_waits(history), 1.2, "p100"),
    ]


def counts(history: History) -> dict[str, int]:
    """How much happened."""
    events = Counter(event.kind for event in history.events)
    ends = [
        (story.birth.name, story.finish) for story in history.stories.values() if story.finish is not None
    ]
    statuses = Counter(str(end.status) for _, end in ends)
    quarantined = [name for name, end in ends if end.reason == "quarantined"]
    return (
        {
            "tasks": len(history.births),
            "claims": len(history.claims),
            "executions": len(history.executions),
            "duplicates": len(duplicates(history)),
            "losses": events["lease_lost"],
            "releases": events["released"],
            "stale results refused": events["stale_result"],
            "quarantined": len(quarantined),
            "quarantined though harmless": sum(name != "poison" for name in quarantined),
            "hooks run": len(history.hooks),
            "hooks failed": events["hook_failed"],
            "effects": len(history.effects),
            "workers": len(history.workers),
            "versions of the configuration": len(history.configs),
            "slots of schedules": len(history.slots),
            "commands": len({receipt.issued.request for receipt in history.receipts}),
            "receipts": len(history.receipts),
            "retried by operators": sum(change.op == "revive" for change in history.changes),
            "faults": len({fault.number for fault in history.faults}),
        }
        | _receipts(history)
        | {f"ended {status}": number for status, number in sorted(statuses.items())}
    )


def _receipts(history: History) -> dict[str, int]:
    closed = [receipt.closed for receipt in history.receipts]
    outcomes = Counter(f"{row.action} {row.outcome}" for row in closed if row is not None)
    return {f"receipts: {what}": number for what, number in sorted(outcomes.items())}


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least this share of them doesn't exceed; `values` are sorted."""
    return values[max(math.ceil(share * len(values)) - 1, 0)]


def _figure(name: str, measured: Iterable[float], bound: float, bounded: str) -> Figure:
    values = sorted(measured)
    if not values:
        return Figure(name, 0, None, None, None, bound, bounded, None)
    p50, p99, p100 = (percentile(values, share) for share in (0.5, 0.99, 1.0))
    held = (p100 if bounded == "p100" else p99) <= bound
    return Figure(name, len(values), p50, p99, p100, bound, bounded, held)


def _kills(history: History, *, parent: bool) -> list[Fault]:
    killed = [fault for fault in history.faults if fault.kind == "sigkill"]
    return [fault for fault in killed if bool(fault.facts.get("parent")) == parent]


def _running_again(name: str, history: History, kills: list[Fault], bound: float, bounded: str) -> Figure:
    """From the kill to the next claim of what it interrupted: first losses that could be seen in time."""
    measured = [
        following.at - fault.at
        for fault in kills
        for claim, following in _held(history, fault)
        if claim.change.losses == 0 and _was_seen(history, fault, min(following.at, fault.at + bound))
    ]
    return _figure(name, measured, bound, bounded)


def _was_seen(history: History, fault: Fault, until: float) -> bool:
    """Whether those who put it right had the database all the time: another worker, and the parent too."""
    parent = fault.facts.get("parent")
    parent_saw = parent is None or _ran(history, parent, (fault.at, until))
    return parent_saw and _another_saw(history, fault.pid, (fault.at, until))


def _another_saw(history: History, pid: int | None, span: Span) -> bool:
    """Whether another worker had the database all the time: who was cut off judges nobody for a lease."""
    lease = history.settings.lease
    return any(
        worker.pid != pid
        and worker.since <= span[0] + lease / 2
        and worker.valid_until >= span[1]
        and _outside(span, _cut_off(history, worker.pid))
        for worker in history.workers.values()
    )


def _ran(history: History, pid: int, span: Span) -> bool:
    """Whether nothing was done to that process and its way to the database, and it didn't end."""
    is_over = span[0] <= history.exits.get(pid, math.inf) <= span[1]
    return not is_over and _outside(span, history.disturbances(pid, settle=0.0, but=_LISTEN))


def _held(history: History, fault: Fault) -> Iterator[tuple[Claim, Claim]]:
    """What a process held at that moment, and the next claim of the same task."""
    for claim in history.claims_of.get(fault.pid or 0, ()):
        if claim.at <= fault.at < claim.left_at:
            following = _next_claim(history, claim)
            if following is not None:
                yield claim, following


def _next_claim(history: History, claim: Claim) -> Claim | None:
    """The next claim of that task, unless an operator may have kept it waiting."""
    story = history.stories[claim.task]
    following = next((one for one in story.claims if one.token > claim.token), None)
    if following is None or was_steered(history, story, claim.at, following.at):
        return None
    return following


def was_steered(history: History, story: Story, since: float, until: float) -> bool:
    """Whether commands or a configuration may have kept a task waiting between two moments."""
    commanded = any(
        one.issued.at <= until and (one.closed is None or one.closed.at >= since)
        for one in history.receipts_of.get(story.birth.task, ())
    )
    paused = any(change.status == "paused" and since <= change.at <= until for change in story.changes)
    return commanded or paused or _may_be_held_back(history, story, since, until)


def _may_be_held_back(history: History, story: Story, since: float, until: float) -> bool:
    """Whether any version that somebody may have applied in that time pauses, limits or caps such tasks."""
    lease = history.settings.lease
    return any(
        one.may_keep_waiting(story.birth) and one.at <= until and (after is None or after.at + lease >= since)
        for one, after in pairwise([*history.versions, None])
        if one is not None
    )


def _cut_off(history: History, pid: int) -> list[Span]:
    """When a process can't put back what others left: locks apart, until one lease after it was cut off."""
    kinds = frozenset(fault.kind for fault in history.faults)
    cuts = history.disturbances(pid, settle=history.settings.lease, but=_NO_CUT | _LOCKS)
    return merged([*cuts, *history.disturbances(pid, settle=0.0, but=kinds - _LOCKS)])


def _outside(span: Span, gaps: list[Span]) -> bool:
    return without(span, gaps) == [span]


def _handed_over(history: History) -> Iterator[float]:
    """From the end of the grace period, or the second signal, to the claim of what was released elsewhere."""
    for pid, signals in _signals(history).items():
        let_go = signals[1] if len(signals) > 1 else signals[0] + history.settings.grace
        broken = history.disturbances(pid, settle=1.0, but=frozenset({"sigterm"}))
        for claim in history.claims_of.get(pid, ()):
            following = _next_claim(history, claim)
            if following is None or claim.left is None or claim.left_at < signals[0]:
                continue
            since = min(let_go, claim.left_at)
            told = history.stories[claim.task].told_with(claim.left)
            span = since, following.at
            if "released" in told and _outside(span, broken) and _was_there(history, pid, span):
                yield following.at - since


def _was_there(history: History, but: int, span: Span) -> bool:
    """Whether another worker was there all the time, and nothing of it was broken."""
    return any(
        worker.pid != but
        and worker.since <= span[0]
        and worker.valid_until >= span[1]
        and _outside(span, history.disturbances(worker.pid, settle=1.0))
        for worker in history.workers.values()
    )


def _signals(history: History) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for fault in history.faults:
        if fault.kind == "sigterm" and fault.pid is not None:
            found.setdefault(fault.pid, []).append(fault.at)
    return {pid: sorted(times) for pid, times in found.items()}


def _claiming_again(history: History) -> Iterator[float]:
    """From the moment the server accepts connections to the first claim, where something could be claimed."""
    claimed = [claim.at for claim in history.claims]
    pending = [
        (since, until)
        for story in history.stories.values()
        for since, until, _ in story.pending_spans()
        if not _may_be_held_back(history, story, since, min(until, history.ended_at))
    ]
    starts = sorted(fault.at for fault in history.faults if fault.kind in _CUTS_EVERYONE)
    for fault in history.faults:
        if fault.kind not in _CUTS_EVERYONE or fault.over is None:
            continue
        place = bisect_left(claimed, fault.over)
        broken_again = next((at for at in starts if at > fault.over), math.inf)
        if any(since < fault.over + _COMES_WITHIN and fault.over < until for since, until in pending):
            first = claimed[place] if place < len(claimed) else history.ended_at
            if first < broken_again:
                yield first - fault.over


def _found(history: History) -> Iterator[float]:
    """Until the worker gave the silent connection up; where it never did, as long as it was silent.

    One that idles is found by whoever wants it first: counted from there. (Where the other host is really
    gone, keepalives find it.) The one that listens has to be asked.
    """
    for fault in history.faults:
        until = fault.over if fault.found is None else fault.found
        if fault.kind != "half_open" or fault.moot or fault.pid is None or until is None:
            continue
        if _went_on(history, fault.pid, (fault.at, until)):
            yield until - (fault.at if fault.facts.get("listens") or fault.asked is None else fault.asked)


def _went_on(history: History, pid: int, span: Span) -> bool:
    """Whether a process was neither frozen nor killed nor told to stop all that time."""
    ends = [history.exits.get(pid, math.inf), *history.told_to_go[pid]]
    ended = any(span[0] <= end <= span[1] for end in ends)
    return not ended and _outside(span, history.frozen.get(pid, []))


def _deaf_waits(history: History) -> Iterator[float]:
    """How long tasks that became claimable while LISTEN was broken waited beside the free slot they got."""
    broken = merged(
        (fault.at, fault.over or fault.at + _LISTENS_AGAIN)
        for fault in history.faults
        if fault.kind in _LISTEN
    )
    idle = {worker.id: idle_spans(history, worker, but=_LISTEN) for worker in history.workers.values()}
    for story in history.stories.values():
        for since, until, how in story.pending_spans():
            if how is None or not how.is_claim or _begin_of(broken, since) is None:
                continue
            free_since = _begin_of(idle.get(how.worker or "", []), until)
            if free_since is not None and not was_steered(history, story, since, until):
                yield until - max(since, free_since)


def _begin_of(spans: list[Span], at: float) -> float | None:
    """Where the span begins that holds a moment."""
    place = bisect_right(spans, (at, math.inf)) - 1
    return spans[place][0] if place >= 0 and spans[place][0] <= at <= spans[place][1] else None
