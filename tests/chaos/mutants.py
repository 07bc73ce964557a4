"""Seeded mutants: mistakes that the invariants must catch. An oracle that never fires is no oracle.

Each is a patch made from here, in a worker process of the chaos run (`apply`) or in its database (`prepare`).
A patch that no longer fits what it patches raises, so that no mutant turns harmless unseen.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

from asynctaskd.daemon import claim, hooks, transactions
from asynctaskd.daemon import lease as leases
from asynctaskd.daemon.loops import OUTAGE
from asynctaskd.postgres import store
from tests.chaos.mutant import Mutant, replace, rewrite, together
from tests.chaos.mutants_of_steering import STEERING


def _swallow(call: Any) -> Any:
    async def mistaken(self: Any, *arguments: Any) -> None:
        try:
            await call(self, *arguments)
        except hooks.HookFailedError:
            pass

    return mistaken


def _outside(call: Any) -> Any:
    async def mistaken(self: Any, execution: Any, transition: Any, connection: Any) -> None:
        async with self._transactions._pool.acquire() as another:
            await call(self, execution, transition, another)

    return mistaken


def _effect_outside(completing: Any) -> Any:
    def mistaken(self: Any, execution: Any, result: Any) -> Any:
        return _Beside(self._pool, completing(self, execution, result))

    return mistaken


class _Beside:
    """Gives the handler a connection beside the transaction that completes its task."""

    def __init__(self, pool: Any, transaction: Any) -> None:
        self._pool = pool
        self._transaction = transaction

    async def __aenter__(self) -> Any:
        await self._transaction.__aenter__()
        self._another = await self._pool.acquire()
        return self._another

    async def __aexit__(self, *error: object) -> Any:
        await self._pool.release(self._another)
        return await self._transaction.__aexit__(*error)


def _lose_unknown(write: Any) -> Any:
    async def mistaken(self: Any, batch: Sequence[store.Ended]) -> set[int]:
        try:
            return await write(self, batch)
        except OUTAGE:
            return {one.task_id for one in batch}

    return mistaken


_behind: set[asyncio.Task[Any]] = set()


def _say_done_first(write: Any) -> Any:
    async def mistaken(self: Any, batch: Sequence[store.Ended]) -> set[int]:
        writing = asyncio.create_task(write(self, batch))
        _behind.add(writing)
        writing.add_done_callback(_behind.discard)
        writing.add_done_callback(lambda done: done.cancelled() or done.exception())
        return {one.task_id for one in batch}

    return mistaken


def _strict_last(ask: Any) -> Any:
    async def mistaken(self: Any, *arguments: Any, strict: Any, shares: Any, **others: Any) -> Any:
        return await ask(
            self, *arguments, strict=strict._replace(most=0) if shares else strict, shares=shares, **others
        )

    return mistaken


def _never_poll(build: Any) -> Any:
    def mistaken(self: Any, *arguments: Any, **others: Any) -> None:
        build(self, *arguments, **others | {"poll_interval": 3600.0})

    return mistaken


# As far from the right time as the process id says: each worker's clock is wrong in its own way.
_OWN_CLOCK = f"asynctaskd.clock() + interval '{os.getpid() % 7 + 2} seconds' + "

_ALL = [
    Mutant(
        "token_unchecked",
        "finalize doesn't look at the claim token",
        frozenset({"finish_by_latest_claim", "stale_never_accepted"}),
        ("freeze_long", "partition_long"),
        together(
            rewrite("finalize", ("t.claim_token = o.token AND ", "")),
            rewrite("complete", ("t.claim_token = o.token AND ", "")),
        ),
    ),
    Mutant(
        "own_clock",
        "a lease ends by the clock of its worker, which is wrong",
        frozenset({"lease_by_database_clock"}),
        ("kill",),
        together(
            rewrite("renew_lease", ("asynctaskd.clock() + $2", f"{_OWN_CLOCK}$2")),
            rewrite("register_worker", ("asynctaskd.clock() + $11", f"{_OWN_CLOCK}$11")),
        ),
    ),
    Mutant(
        "hook_error_swallowed",
        "a failure hook's error is swallowed",
        frozenset({"hook_with_status"}),
        (),
        replace(hooks.FailureHooks, "_call", _swallow),
    ),
    Mutant(
        "hook_outside",
        "a failure hook runs beside the transaction that writes the status",
        frozenset({"hook_with_status"}),
        (),
        replace(hooks.FailureHooks, "_call", _outside),
    ),
    Mutant(
        "effect_outside",
        "ctx.transaction() hands out another connection than the one that completes the task",
        frozenset({"effect_once"}),
        (),
        replace(transactions.Transactions, "completing", _effect_outside),
    ),
    Mutant(
        "released_untold",
        "what is released leaves no event",
        frozenset({"event_between_runs"}),
        ("terminate", "terminate_twice"),
        rewrite("finalize", ("FROM back WHERE event IS NOT NULL", "FROM back WHERE event <> 'released'")),
    ),
    Mutant(
        "loss_untold",
        "a lost lease leaves no event",
        frozenset({"event_between_runs"}),
        ("kill",),
        rewrite("recover", ("FROM recovered\n), announced", "FROM recovered WHERE false\n), announced")),
    ),
    Mutant(
        "live_recovered",
        "recovery takes tasks from workers that are live",
        frozenset({"lease_respected", "no_overlap"}),
        (),
        rewrite("recover", ("w.id IN (SELECT id FROM declared)", "random() < 0.05")),
    ),
    Mutant(
        "claim_unleased",
        "a claim doesn't look at the worker's lease",
        frozenset({"claim_needs_lease"}),
        ("freeze_long", "partition_long"),
        together(
            rewrite(
                "claim",
                (
                    "\n  AND (SELECT asynctaskd.is_live(w) FROM asynctaskd.workers AS w WHERE w.id = $1)",
                    "",
                ),
            ),
            rewrite(
                "claim_normal",
                (
                    "WHERE (SELECT asynctaskd.is_live(w) FROM asynctaskd.workers AS w WHERE w.id = $1)",
                    "WHERE true",
                ),
            ),
            replace(leases.Lease, "is_held", lambda _: property(lambda self: True)),
        ),
    ),
    Mutant(
        "unknown_is_lost",
        "a finalize whose answer got lost is taken for done",
        frozenset({"results_written"}),
        ("partition_short", "backends_all", "server_crash"),
        replace(store.Store, "finalize", _lose_unknown),
    ),
    Mutant(
        "done_before_written",
        "finalize says done before it is written, and once only",
        frozenset({"results_written"}),
        ("partition_short", "backends_all", "server_crash"),
        replace(store.Store, "finalize", _say_done_first),
    ),
    Mutant(
        "unfenced",
        "executions go on after their lease",
        frozenset({"stops_with_lease"}),
        ("partition_long", "burst", "burst"),  # where all are cut off, nothing runs
        replace(leases.Lease, "fence", lambda _: lambda self, why: None),
    ),
    Mutant(
        "attempts_uncounted",
        "a claim doesn't count the attempt",
        frozenset({"attempts_counted"}),
        (),
        together(
            rewrite(
                "claim",
                ("t.attempts + (t.name <> ALL ($23) OR t.requested IS NOT NULL)::integer", "t.attempts"),
            ),
            rewrite("claim_normal", ("attempts = t.attempts + 1", "attempts = t.attempts")),
        ),
    ),
    Mutant(
        "losses_uncounted",
        "a loss isn't counted, so that poison is never quarantined",
        frozenset({"losses_bounded"}),
        ("kill",),
        rewrite("recover", ("losses = t.losses + 1,", "losses = t.losses,")),
    ),
    Mutant(
        "deaf_and_blind",
        "notices are ignored, and nobody polls",
        frozenset({"woken", "everything_ends"}),
        (),
        together(
            replace(claim.Claimer, "look", lambda _: lambda self, label_set="*": None),
            replace(claim.Claimer, "__init__", _never_poll),
        ),
    ),
    Mutant(
        "released_deleted",
        "a task that is released is gone",
        frozenset({"conservation"}),
        ("terminate", "terminate_twice"),
        rewrite(
            "finalize",
            (
                "AND o.status IN ('completed', 'failed', 'cancelled', 'expired')",
                "AND (o.status IN ('completed', 'failed', 'cancelled', 'expired') OR o.event = 'released')",
            ),
            ("FROM ended WHERE kept > interval '0'", "FROM ended WHERE event IS DISTINCT FROM 'released'"),
            (
                "AND o.status IN ('scheduled', 'pending', 'paused')",
                "AND o.status IN ('scheduled', 'pending', 'paused') AND o.event IS DISTINCT FROM 'released'",
            ),
        ),
    ),
    Mutant(
        "tag_ignored",
        "a unique tag holds nobody off",
        frozenset({"unique_tags"}),
        (),
        statement="CREATE OR REPLACE FUNCTION asynctaskd.take_unique_tag("
        "wanted text, holder bigint, until text)"
        " RETURNS bigint LANGUAGE sql AS 'SELECT NULL::bigint'",
    ),
    Mutant(
        "serial_ignored",
        "tasks of a serial key run beside each other",
        frozenset({"serial_keys"}),
        ("burst",),  # so that one comes while another runs
        statement="DROP INDEX asynctaskd.tasks_serial_head;"
        " CREATE OR REPLACE FUNCTION asynctaskd.goes_first(key text, newcomer_id bigint)"
        " RETURNS boolean LANGUAGE sql AS 'SELECT true'",
    ),
    Mutant(
        "strict_last",
        "the strict lane gets what the normal lane leaves",
        frozenset({"strict_first"}),
        ("burst",),
        replace(store.Store, "claim", _strict_last),
    ),
]

MUTANTS = {mutant.name: mutant for mutant in [*_ALL, *STEERING]}
"""Every mutant by its name, which CHAOS_MUTANT takes."""
