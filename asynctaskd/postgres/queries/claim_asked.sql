-- Claim one of the tasks that operators want to run now: out of turn, and otherwise under the rules of every claim.
-- $1 worker_id, $2 the worker's labels, $3 the names it knows, $4 may it take a strict task?, $5 labels whose tasks may
-- not run now, $6 names that are paused, $7 tasks that this worker lost and whose handlers have not stopped
WITH asked AS MATERIALIZED (
    SELECT request_id, task_id FROM asynctaskd.receipts
    WHERE action = 'run_now' AND outcome IS NULL AND delivered_at IS NULL
), chosen AS MATERIALIZED (
    SELECT id FROM asynctaskd.tasks
    WHERE id = ANY (ARRAY(SELECT task_id FROM asked)) AND id <> ALL ($7::bigint[])
      AND status IN ('pending', 'scheduled') AND losses < 2 AND (priority = 0 OR $4::boolean)
      AND string_to_array(label_set, ',') <@ $2::text[] AND NOT string_to_array(label_set, ',') && $5::text[]
      AND asynctaskd.knows($3::text[], name) AND name <> ALL ($6::text[])
    LIMIT 1 FOR UPDATE SKIP LOCKED
), kept AS MATERIALIZED (
    -- As they are now: whoever asked may be taking it back at this moment.
    SELECT request_id, task_id FROM asynctaskd.receipts
    WHERE task_id = ANY (ARRAY(SELECT id FROM chosen)) AND request_id = ANY (ARRAY(SELECT request_id FROM asked))
      AND action = 'run_now' AND outcome IS NULL AND delivered_at IS NULL
    FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE asynctaskd.tasks AS t
    SET status = 'running', worker_id = $1, claim_token = t.claim_token + 1, claimed_at = (SELECT asynctaskd.clock()),
        attempts = t.attempts + 1, reason = nullif(t.reason, 'name paused')  -- as in claim.sql
    WHERE t.id = ANY (ARRAY(SELECT task_id FROM kept))
      AND (SELECT asynctaskd.is_live(w) FROM asynctaskd.workers AS w WHERE w.id = $1)
    RETURNING t.*
), delivered AS (
    UPDATE asynctaskd.receipts AS r
    SET delivered_at = (SELECT asynctaskd.clock()), worker_id = $1, claim_token = (SELECT claim_token FROM claimed),
        status = 'running'
    WHERE r.task_id = ANY (ARRAY(SELECT id FROM claimed)) AND r.request_id = ANY (ARRAY(SELECT request_id FROM kept))
)
SELECT t.id, t.claim_token, t.name, t.payload, t.label_set, t.priority, t.weight, t.attempts, t.failures,
       t.losses, t.max_attempts, t.timeout, t.retry, t.deadline, t.claimed_at,
       CASE WHEN t.reason = 'unknown_name' THEN t.created_at END, t.serial_key, t.unique_tag, t.reason,
       date_part('epoch', t.claimed_at - greatest(t.created_at, t.run_at)),
       left(t.metadata ->> 'traceparent', 128), left(t.metadata ->> 'tracestate', 1024)
FROM claimed AS t
