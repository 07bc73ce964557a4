"""How loud is an event? The level of each, and the order of the levels."""

from __future__ import annotations

from collections.abc import Mapping

LEVELS: Mapping[str, str | None] = {
    "worker.started": "info",
    "worker.stopping": "info",
    "worker.stopped": "info",
    "child.started": "info",
    "child.ended": "info",
    "child.died": "error",
    "child.not_started": "error",
    "child.silent": "error",
    "release.failed": "error",
    "worker.waiting": "warning",
    "worker.measured": None,
    "fleet.measured": None,
    "loop.answered": None,
    "lease.answered": None,
    "lease.not_renewed": None,
    "listener.proved": None,
    "tasks.claimed": None,
    "executions.ended": None,
    "task.enqueued": None,
    "enqueue.failed": None,
    "task.claimed": None,
    "task.completed": "debug",
    "task.retried": "warning",
    "task.failed": "warning",
    "task.snoozed": "info",
    "task.released": "info",
    "task.expired": "warning",
    "task.stale_result": "warning",
    "task.quarantined": "warning",
    "task.after_commit": "warning",
    "task.unknown_name": "warning",
    "claim.lost": "warning",
    "hook.failed": "error",
    "error_hook.failed": "error",
    "database.lost": "error",
    "database.restored": "info",
    "database.suits": None,
    "database.stepped_back": "error",
    "database.unproven": "warning",
    "file.exposed": "warning",
    "listener.up": "info",
    "listener.lost": "warning",
    "listener.off": "warning",
    "queue.polled": None,
    "cron.looked": None,
    "schedule.ran": "debug",
    "schedule.late": "warning",
    "schedule.skipped": "info",
    "schedule.refused": "error",
    "notice.unreadable": "warning",
    "notices.crowded": "warning",
    "notices.counted": None,
    "config.applied": "info",
    "config.rejected": "warning",
    "config.stepped_back": "warning",
    "config.converged": "info",
    "config.superseded": "info",
    "config.not_converged": "warning",
    "config.lagging": None,
    "lease.lost": "error",
    "lease.renewed": None,
    "keeper.turned": None,
    "loop.stalled": "error",
    "loop.recovered": "warning",
    "worker.gave_up": "critical",
    "thread.stack": "critical",
    "workers.lost": "warning",
    "partition.dropped": "info",
    "partition.in_use": "warning",
    "loop.crashed": "error",
    "handler.stuck": "error",
    "handler.leaked_tasks": "warning",
    "http.serving": "info",
    "http.failed": "error",
    "audit.failed": "error",
    "dashboard_tokens.read": "info",
    "dashboard_tokens.refused": "error",
    "systemd.unreachable": "error",
    "config_file.read": "info",
    "config_file.refused": "error",
    "children.watched": None,
    "signals.restored": "warning",
    "loop.interrupted": "error",
}
"""The level of each event: a task's own failure is at most a warning, the daemon's is an error.

None is never logged; an event that isn't named here logs at info.
"""

SEVERITY = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
"""Each level's number, as the standard library's logging has it."""


def level_of(severity: int) -> str:
    """The level a number of the standard library's logging belongs to."""
    return next((name for name, least in reversed(SEVERITY.items()) if severity >= least), "debug")
