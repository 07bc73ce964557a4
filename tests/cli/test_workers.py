from __future__ import annotations

import json

WORKER = """
    INSERT INTO asynctaskd.workers (id, name, hostname, pid, version, labels, names, concurrency, expires_at,
                                    lost_at, lost_because, stall)
    VALUES (gen_random_uuid(), gen_random_uuid(), 'here', 1, '0', '{}', '{}', 1,
            clock_timestamp() + interval '1 hour', $1::text::timestamptz, $2, $3::text::jsonb)
"""


def test_a_worker_whose_event_loop_is_blocked_names_who_blocks_it(cli):
    stall = {"task_id": 7, "task": "report", "seconds": 12.3, "stack": "in report"}
    cli.sql(WORKER, None, None, json.dumps(stall))
    [worker] = json.loads(cli.run("workers", "--json").stdout)
    assert (worker["status"], worker["stall"]) == ("live", stall)
    assert "blocked 12 s by report" in cli.run("workers").stdout


def test_a_worker_that_was_seen_to_die_says_how(cli):
    cli.sql(WORKER, "2026-01-01T00:00:00Z", "killed by SIGKILL", None)
    [worker] = json.loads(cli.run("workers", "--json").stdout)
    assert (worker["status"], worker["lost_because"]) == ("lost", "killed by SIGKILL")
    assert "killed by SIGKILL" in cli.run("workers").stdout
