-- The newest tasks that fit a filter; NULL leaves a condition out.
-- $1 name, $2 status, $3 labels (all of them), $4 rows at most
SELECT id, name, payload::text, status, priority, weight, labels, tags, unique_tag, serial_key, serial_id, parent_id,
       depends_on, run_at, deadline, timeout, attempts, losses, max_attempts, worker_id, claim_token, claimed_at,
       finished_at, created_at, result::text, last_error, reason, progress::text, metadata::text
FROM asynctaskd.all_tasks
WHERE ($1::text IS NULL OR name = $1) AND ($2::text IS NULL OR status = $2)
  AND ($3::text[] IS NULL OR labels @> $3)
ORDER BY id DESC LIMIT $4
