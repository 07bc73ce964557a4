"""Mistakes in commands, configurations and schedules. An operator steers while they are at work."""

from __future__ import annotations

import asyncio
from random import random
from typing import Any

from asynctaskd.daemon import commands, interrupts, permits
from asynctaskd.postgres import schedules
from asynctaskd.task import Released
from tests.chaos.mutant import Mutant, replace, rewrite, together

_PAUSED = "status = 'paused' AND reason = 'paused by operator' AND serial_key IS NULL"

_behind: set[asyncio.Task[Any]] = set()


def _without_pauses(begin: Any) -> Any:
    async def mistaken(self: Any, *arguments: Any) -> None:
        await begin(self, *arguments)
        self._paused = frozenset()

    return mistaken


def _apply_late(apply: Any) -> Any:
    async def later(self: Any, row: dict[str, Any]) -> None:
        await asyncio.sleep(3)
        if row["identity"] != self.identity:
            await apply(self, row)

    async def mistaken(self: Any, row: dict[str, Any]) -> None:
        applying = asyncio.create_task(later(self, row))
        _behind.add(applying)
        applying.add_done_callback(_behind.discard)

    return mistaken


def _weigh_equally(apply: Any) -> Any:
    async def mistaken(self: Any, row: dict[str, Any]) -> Any:
        return await apply(self, row | {"weights": dict.fromkeys(row["weights"], 1)})

    return mistaken


def _leave_out(decide: Any) -> Any:
    async def mistaken(self: Any, schedule: Any, following: Any, slots: list[Any]) -> Any:
        return await decide(self, schedule, following, slots if random() < 0.9 else [])

    return mistaken


def _never_follow(_: Any) -> Any:
    async def mistaken(self: Any, *arguments: Any) -> float:
        return 3600.0

    return mistaken


STEERING = [
    Mutant(
        "request_forgotten",
        "what is told to stop is put back, and finalize doesn't look at the request",
        frozenset({"nothing_claimed_while_paused"}),
        (),
        together(
            rewrite(
                "finalize",
                (
                    "WHEN t.requested IS NOT NULL THEN 'paused'\n                      WHEN o.status",
                    "WHEN o.status",
                ),
            ),
            replace(interrupts, "_outcome_of", lambda _: lambda order: Released()),
        ),
        is_steered=True,
    ),
    Mutant(
        "paused_claimed",
        "claims don't look at paused labels",
        frozenset({"nothing_claimed_while_paused"}),
        (),
        replace(permits.Permits, "_begin", _without_pauses),
        is_steered=True,
    ),
    Mutant(
        "pause_lifted",
        "what an operator has paused goes on by itself",
        frozenset({"commands_hold"}),
        (),
        rewrite(
            "promote_due",
            ("status = 'scheduled' AND run_at <=", f"{_PAUSED} OR status = 'scheduled' AND run_at <="),
        ),
        is_steered=True,
    ),
    Mutant(
        "limit_ignored",
        "each worker keeps to a limit by itself",
        frozenset({"limits_kept"}),
        (),
        statement="""CREATE OR REPLACE FUNCTION asynctaskd.exchange_permits(
            for_worker uuid, nth bigint, for_label text, own_limit integer, held integer, wants integer,
            OUT granted integer, OUT target integer) LANGUAGE sql
            AS 'SELECT greatest(least(wants, own_limit), held), least(wants, own_limit)'""",
        is_steered=True,
    ),
    Mutant(
        "ack_before_applied",
        "a version is acknowledged seconds before it is applied",
        frozenset({"nothing_claimed_while_paused", "limits_kept"}),
        (),
        replace(commands.Steering, "_apply", _apply_late),
        is_steered=True,
    ),
    Mutant(
        "ack_goes_back",
        "acks of older versions come late, and are written",
        frozenset({"versions_forward"}),
        (),
        rewrite(
            "acknowledge_config",
            (
                "IS NULL THEN $2 ELSE applied",
                "IS NULL THEN $2::bigint - 2 * (random() < 0.5)::integer ELSE applied",
            ),
        ),
        is_steered=True,
    ),
    Mutant(
        "version_unheard",
        "a worker stays with the configuration with which it began",
        frozenset({"versions_arrive"}),
        (),
        replace(commands.Steering, "follow", _never_follow),
        is_steered=True,
    ),
    Mutant(
        "weights_ignored",
        "all groups weigh the same",
        frozenset({"group_shares"}),
        (),
        replace(commands.Steering, "_apply", _weigh_equally),
        is_steered=True,
    ),
    Mutant(
        "slot_fired_twice",
        "every worker decides a slot for itself",
        frozenset({"one_task_per_slot"}),
        (),
        statement="""ALTER TABLE asynctaskd.schedule_slots DROP CONSTRAINT schedule_slots_pkey;
            DO $do$
            DECLARE
                right_one text := pg_get_functiondef('asynctaskd.decide_slots'::regproc);
                wrong text := replace(right_one, 'AND t.next_at IS NOT DISTINCT FROM seen', '');
            BEGIN
                wrong := regexp_replace(wrong, 'CONTINUE WHEN EXISTS [^;]*;', '');
                wrong := replace(wrong, 'FOR UPDATE SKIP LOCKED', '');
                ASSERT length(wrong) < length(right_one) - 150;
                EXECUTE wrong;
            END $do$""",
        is_steered=True,
    ),
    Mutant(
        "slot_left_out",
        "a schedule now and then moves on without its slots",
        frozenset({"slots_complete"}),
        (),
        replace(schedules.ScheduleStore, "decide", _leave_out),
        is_steered=True,
    ),
    Mutant(
        "orphan_born_alive",
        "a child isn't asked what became of its parents",
        frozenset({"no_child_of_cancelled", "born_paused"}),
        (),
        statement="CREATE OR REPLACE FUNCTION asynctaskd.born_as(parent bigint) RETURNS text"
        " LANGUAGE sql AS 'SELECT NULL::text'",
        is_steered=True,
    ),
    Mutant(
        "cascade_forgotten",
        "a command stops its task and none of the descendants",
        frozenset({"no_child_of_cancelled"}),
        (),
        statement="CREATE OR REPLACE FUNCTION asynctaskd.with_descendants(ids bigint[]) RETURNS bigint[]"
        " LANGUAGE sql AS 'SELECT ids'",
        is_steered=True,
    ),
    Mutant(
        "receipt_too_early",
        "a receipt says stopped when the worker has heard of it",
        frozenset({"stopped_after_end", "receipts_agree"}),
        (),
        statement="""CREATE FUNCTION chaos.too_early() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                new.outcome := 'stopped';
                new.stopped_at := clock_timestamp();
                new.status := CASE new.action WHEN 'pause' THEN 'paused' WHEN 'cancel' THEN 'cancelled'
                                              WHEN 'expire' THEN 'expired' ELSE 'failed' END;
                RETURN new;
            END $$;
            CREATE TRIGGER too_early BEFORE UPDATE ON asynctaskd.receipts FOR EACH ROW
            WHEN (old.delivered_at IS NULL AND new.delivered_at IS NOT NULL AND new.outcome IS NULL)
            EXECUTE FUNCTION chaos.too_early()""",
        is_steered=True,
    ),
]
"""Each of them needs an operator."""
