-- Write that executions completed, each guarded by its claim token; a row whose token went stale stays as it is,
-- and so does a task with a unique tag: what isn't returned is left to finalize.sql.
-- $1 ids, $2 claim tokens, $3 results (JSON), $4 the definitions' keep; $3 and $4 may be empty: NULL for all
-- Returns the ids that were written.
--
-- What finalize.sql does for all ends, for the one that nearly every execution comes to, at half the cost.
WITH ended AS (
    DELETE FROM asynctaskd.tasks AS t
    USING unnest($1::bigint[], $2::bigint[], $3::jsonb[], $4::interval[]) AS o(id, token, result, keep)
    WHERE t.id = ANY ($1) AND t.id = o.id AND t.claim_token = o.token AND t.status = 'running'
      AND t.unique_tag IS NULL
    RETURNING t.*, o.result, (SELECT asynctaskd.clock()) AS finished_at,
              coalesce(t.keep, o.keep, interval '7 days') AS kept
), archived AS (
    INSERT INTO asynctaskd.finished_tasks
           (id, claim_token, parent_id, root_id, serial_id, created_at, run_at, deadline, claimed_at,
            finished_at, forget_on, priority, weight, attempts, failures, losses, max_attempts, worker_id,
            timeout, keep, status, name, label_set, tags, depends_on, unique_tag, serial_key, retry, reason,
            last_error, payload, result, progress, metadata)
    SELECT  id, claim_token, parent_id, root_id, serial_id, created_at, run_at, deadline, claimed_at,
            finished_at, asynctaskd.forget_day(finished_at, kept), priority, weight, attempts, failures, 0,
            max_attempts, worker_id, timeout, keep, 'completed', name, label_set, tags, depends_on, NULL,
            serial_key, retry, NULL, last_error, payload, result, progress, metadata
    FROM ended WHERE kept > interval '0'
)
SELECT id FROM ended
