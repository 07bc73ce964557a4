-- The records of some tasks, wherever they are.
-- $1 ids
SELECT id, name, payload::text, status, priority, weight, labels, tags, unique_tag, serial_key, serial_id, parent_id,
       depends_on, run_at, deadline, timeout, attempts, losses, max_attempts, worker_id, claim_token, claimed_at,
       finished_at, created_at, result::text, last_error, reason, progress::text, metadata::text
FROM asynctaskd.all_tasks WHERE id = ANY ($1::bigint[])
