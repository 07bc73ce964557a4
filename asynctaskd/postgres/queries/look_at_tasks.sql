-- The records of some tasks without what they carry: no payload, result, error or metadata, and of the progress its
-- percentage alone.
-- $1 ids
SELECT id, name, NULL AS payload, status, priority, weight, labels, tags, unique_tag, serial_key, serial_id, parent_id,
       depends_on, run_at, deadline, timeout, attempts, losses, max_attempts, worker_id, claim_token, claimed_at,
       finished_at, created_at, NULL AS result, NULL AS last_error, reason,
       CASE WHEN percent IS NOT NULL THEN jsonb_build_object('percent', percent)::text END AS progress, NULL AS metadata
FROM asynctaskd.task_list CROSS JOIN LATERAL asynctaskd.percent_of(id) AS percent
WHERE id = ANY ($1::bigint[])
