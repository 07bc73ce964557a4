"""The audit, read back from the database of a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import asyncpg

from tests.chaos.records import Ack, Birth, Change, Config, Event, LeaseRow, Mark, ReceiptRow, Slot

if TYPE_CHECKING:
    from tests.chaos.history import History

_BIRTHS = """SELECT seq, extract(epoch FROM at)::float8, txid, task_id, name, status, priority, max_attempts,
    extract(epoch FROM deadline)::float8, label_set, serial_key, unique_tag, parent_id,
    extract(epoch FROM slot)::float8 FROM chaos.births
    ORDER BY seq"""
_CHANGES = """SELECT seq, extract(epoch FROM at)::float8, extract(epoch FROM asked_at)::float8, txid, process,
    op, task_id, old_status, status, old_token, token, old_worker::text, worker::text, old_attempts, attempts,
    old_failures, failures, old_losses, losses, reason, old_requested, requested FROM chaos.changes
    ORDER BY seq"""
_EVENTS = """SELECT seq, extract(epoch FROM at)::float8, txid, task_id, token, kind
    FROM chaos.events ORDER BY seq"""
_LEASES = """SELECT seq, extract(epoch FROM at)::float8, worker::text, pid, concurrency, labels,
    extract(epoch FROM expires_at)::float8, extract(epoch FROM lost_at)::float8,
    extract(epoch FROM stopped_at)::float8 FROM chaos.leases ORDER BY seq"""
_CONFIGS = """SELECT seq, extract(epoch FROM at)::float8, version, content::text FROM chaos.configs
    ORDER BY seq"""
_ACKS = "SELECT seq, extract(epoch FROM at)::float8, worker::text, version FROM chaos.acks ORDER BY seq"
_SLOTS = """SELECT seq, extract(epoch FROM at)::float8, txid, schedule, extract(epoch FROM slot)::float8,
    task_id, outcome FROM chaos.slots ORDER BY seq"""
_RECEIPTS = """SELECT seq, extract(epoch FROM at)::float8, txid, request_id::text, task_id, action, status,
    outcome, reason, worker::text, token, extract(epoch FROM delivered_at)::float8,
    extract(epoch FROM stopped_at)::float8 FROM chaos.receipts ORDER BY seq"""


async def read_audit(history: History, dsn: str) -> None:
    """Fill a history with what the database recorded."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            history.births = [Birth(*row) async for row in _shared(connection, _BIRTHS)]
            history.changes = [Change(*row) async for row in _shared(connection, _CHANGES)]
            history.events = [Event(*row) async for row in _shared(connection, _EVENTS)]
            history.leases = [LeaseRow(*row) async for row in _shared(connection, _LEASES)]
            marks = "SELECT task_id, {}, txid FROM chaos.{}"
            history.hooks = [Mark(*row) for row in await connection.fetch(marks.format("NULL", "hooks"))]
            history.effects = [Mark(*row) for row in await connection.fetch(marks.format("token", "effects"))]
            history.configs = [
                Config(*row, json.loads(content)) for *row, content in await connection.fetch(_CONFIGS)
            ]
            history.slots = [Slot(*row) async for row in _shared(connection, _SLOTS)]
            history.acks = [Ack(*row) async for row in _shared(connection, _ACKS)]
            history.receipt_rows = [ReceiptRow(*row) async for row in _shared(connection, _RECEIPTS)]
    finally:
        await connection.close()


async def _shared(connection: Any, query: str) -> Any:
    """Rows whose equal texts are one object: a million of them have but a few words."""
    words: dict[Any, Any] = {}
    async for row in connection.cursor(query, prefetch=5000):
        yield [words.setdefault(value, value) if isinstance(value, str) else _plain(value) for value in row]


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
