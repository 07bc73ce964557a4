-- Record that a failure hook failed for good, beside the status that stands without it.
-- $1 id, $2 claim token, $3 detail (JSON)
INSERT INTO asynctaskd.task_events (task_id, claim_token, kind, detail) VALUES ($1, $2, 'hook_failed', $3)
