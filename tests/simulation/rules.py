"""The protocol's durations in the simulation, and the ways in which it can be broken on purpose.

Durations keep the order that they have in life, but lie closer together, so that a world of a hundred steps
sees several leases end.
"""

from __future__ import annotations

LEASE = 30.0
RENEW = 8.0
POLL = 6.0
GRACE = 8.0
LAST_WORDS = 1.5
LEFT_BEHIND = 1.0  # how long a task that couldn't be stopped stays put after it was given back
STALL_LIMIT = 60.0
CALL_TIMEOUT = 8.0
DOUBT = 30.0  # how long a statement may still be committed after its caller gave up
HOOK_TRIES = 3
QUARANTINE = 3
SUSPECT = 2

MUTANTS = {
    "stale results are written": "finalize doesn't compare the claim token",
    "claims without a lease": "a claim doesn't ask whether its worker is live",
    "renews after loss": "a renewal doesn't ask whether the worker is live",
    "worker's clock": "due times are computed with the worker's wall clock",
    "losses aren't counted": "recovery puts tasks back as if nothing had happened",
    "nobody is quarantined": "a task that lost its worker three times is executed again",
    "running ones expire": "a deadline ends tasks that are running",
    "token reset": "recovery sets the claim token back",
    "hook apart": "the failure hook's transaction isn't the status's",
    "hook before the fence": "the failure hook runs before the claim token is compared",
    "hook error swallowed": "the status of a failure is written though its hook raised",
    "failures aren't counted": "a failed execution doesn't count against max_attempts",
    "snooze is a failure": "an execution that asked to come back counts as failed",
    "attempts aren't given back": "a snooze or a release spends an attempt",
    "normal first": "a claim fills its slots from the normal lane before the strict one",
    "suspects together": "a worker claims several suspects at once",
    "two of a serial key": "a line moves though its head still runs",
    "tag taken twice": "a unique tag is given to whoever asks",
    "deadline ignored": "a task claimed after its deadline is executed all the same",
    "orphans by name only": "releasing orphans late also releases what was claimed since",
    "orphans forgotten": "a claim whose answer got lost is never looked for",
    "fence too late": "executions are stopped when the lease is long over",
    "lease from the answer": "a lease is counted from its answer instead of its question",
    "slept through": "a process that was frozen goes on without looking at the clock",
    "starts stale claims": "what a claim brought is started without asking whether the lease still stands",
    "deaf go on": "a process isn't ended though its handlers don't stop before its lease ends",
    "unknown is failure": "a finalize whose answer got lost is followed by a failure",
    "unknown is success": "a finalize whose answer got lost is taken for written",
    "cut off judges": "those are declared lost who could not renew while the database was away",
    "given back at once": "a task that couldn't be stopped is claimable before its process is gone",
    "release skipped": "a task is dropped, not released, at the end of the grace period",
    "each for itself": "each worker is granted the whole of a limit",
    "ended is free": "a task whose end isn't written yet doesn't count against its limit",
    "lost ones don't count": "a lost worker's permits are given to others before its tasks were recovered",
    "retried at once": "a retry doesn't wait for its delay",
}
"""Mutant → what it does. Each is caught by some invariant, and a test holds that."""
