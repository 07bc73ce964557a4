-- The newest tasks that fit a filter, without what they carry: see look_at_tasks. NULL leaves a condition out.
-- $1 name, $2 status, $3 labels (all of them), $4 rows at most
SELECT id, name, NULL AS payload, status, priority, weight, labels, tags, unique_tag, serial_key, serial_id, parent_id,
       depends_on, run_at, deadline, timeout, attempts, losses, max_attempts, worker_id, claim_token, claimed_at,
       finished_at, created_at, NULL AS result, NULL AS last_error, reason,
       CASE WHEN percent IS NOT NULL THEN jsonb_build_object('percent', percent)::text END AS progress, NULL AS metadata
FROM (
    SELECT * FROM asynctaskd.task_list
    WHERE ($1::text IS NULL OR name = $1) AND ($2::text IS NULL OR status = $2)
      AND ($3::text[] IS NULL OR labels @> $3)
    ORDER BY id DESC LIMIT $4
) AS newest CROSS JOIN LATERAL asynctaskd.percent_of(id) AS percent
ORDER BY id DESC
