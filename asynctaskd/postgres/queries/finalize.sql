-- Write what became of executions, each guarded by its claim token; a row whose token went stale stays as it is.
-- $1 ids, $2 claim tokens, $3 new statuses, $4 delays, $5 results (JSON), $6 errors, $7 reasons,
-- $8 attempt spent? (yes), $9 failed execution? (no), $10 event kinds, $11 the definitions' keep
-- From $4 on an array may be empty: then it is NULL for all, or what stands in brackets.
-- Returns the ids that were written, with this transaction's own id.
--
-- Rows are looked up by = ANY or in a subquery with a LIMIT, never by a join alone: planned while the table was
-- empty, a join would walk the whole index for ever after.
WITH outcome AS (
    SELECT id, token, status, delay, result, error, reason, coalesce(spent, true) AS spent,
           coalesce(failed, false) AS failed, event, keep
    FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::interval[], $5::jsonb[], $6::text[],
                $7::text[], $8::boolean[], $9::boolean[], $10::text[], $11::interval[])
        AS o(id, token, status, delay, result, error, reason, spent, failed, event, keep)
), ended AS (
    DELETE FROM asynctaskd.tasks AS t USING outcome AS o
    WHERE t.id = ANY ($1) AND t.id = o.id AND t.claim_token = o.token AND t.status = 'running'
      AND o.status IN ('completed', 'failed', 'cancelled', 'expired')
    RETURNING t.*, o.status AS new_status, o.result, o.error, o.reason AS new_reason, o.failed, o.spent, o.event,
              (SELECT asynctaskd.clock()) AS finished_at, coalesce(t.keep, o.keep, interval '7 days') AS kept
), archived AS (
    INSERT INTO asynctaskd.finished_tasks
           (id, claim_token, parent_id, root_id, serial_id, created_at, run_at, deadline, claimed_at,
            finished_at, forget_on, priority, weight, attempts, failures, losses, max_attempts, worker_id,
            timeout, keep, status, name, label_set, tags, depends_on, unique_tag, serial_key, retry, reason,
            last_error, payload, result, progress, metadata)
    SELECT  id, claim_token, parent_id, root_id, serial_id, created_at, run_at, deadline, claimed_at,
            finished_at, asynctaskd.forget_day(finished_at, kept), priority, weight,
            attempts - (NOT spent)::integer, failures + failed::integer,
            CASE WHEN new_reason = 'quarantined' THEN 3 ELSE 0 END, max_attempts, worker_id,
            timeout, keep, new_status, name, label_set, tags, depends_on, unique_tag, serial_key, retry, new_reason,
            coalesce(error, last_error), payload, result, progress, metadata
    FROM ended WHERE kept > interval '0'
), back AS (
    UPDATE asynctaskd.tasks AS t
    -- What an operator has asked for comes first, and `settle` sees to it; a pause may have been taken back.
    SET status = CASE WHEN t.requested IS NOT NULL THEN 'paused'
                      WHEN o.status = 'paused' OR o.delay <= interval '0' THEN 'pending' ELSE o.status END,
        worker_id = NULL,
        run_at = CASE WHEN o.delay IS NULL THEN t.run_at ELSE asynctaskd.clock() + o.delay END,
        attempts = t.attempts - (NOT o.spent)::integer, failures = t.failures + o.failed::integer,
        losses = CASE WHEN o.event = 'released' OR o.reason = 'unknown_name' OR o.status = 'paused' AND t.requested IS NULL
                      THEN t.losses ELSE 0 END,
        last_error = coalesce(o.error, t.last_error),
        reason = CASE WHEN o.event = 'released' OR t.reason = 'quarantined' OR t.reason LIKE 'failed_by_operator%'
                           OR o.status = 'paused' AND t.requested IS NULL
                      THEN t.reason ELSE o.reason END
    FROM outcome AS o
    WHERE t.id = ANY ($1) AND t.id = o.id AND t.claim_token = o.token AND t.status = 'running'
      AND o.status IN ('scheduled', 'pending', 'paused')
    RETURNING t.id, t.label_set, t.status, o.token, t.claimed_at, o.error, o.reason, o.delay,
              -- It stopped for a pause that was taken back meanwhile: it is given back.
              CASE WHEN o.status = 'paused' AND t.status = 'pending' THEN 'released' ELSE o.event END AS event
), written AS MATERIALIZED (
    SELECT id FROM ended UNION ALL SELECT id FROM back
), tagged AS (
    SELECT tag, until = 'finished' OR kept = interval '0' AS freed,
           asynctaskd.forget_day(finished_at, kept) AS forget_on
    FROM ended CROSS JOIN LATERAL (
        SELECT tag, until FROM asynctaskd.unique_tags WHERE tag = unique_tag AND task_id = ended.id LIMIT 1
    ) AS held
), freed AS (
    DELETE FROM asynctaskd.unique_tags WHERE tag = ANY (ARRAY(SELECT tag FROM tagged WHERE freed))
), dated AS (
    UPDATE asynctaskd.unique_tags SET forget_on = tagged.forget_on
    FROM tagged
    WHERE unique_tags.tag = ANY (ARRAY(SELECT tag FROM tagged WHERE NOT freed)) AND unique_tags.tag = tagged.tag
), told AS (
    INSERT INTO asynctaskd.task_events (task_id, claim_token, claimed_at, kind, detail)
    SELECT id, token, claimed_at, event,
           jsonb_strip_nulls(jsonb_build_object('error', error, 'reason', reason, 'delay', delay))
    FROM (SELECT id, claim_token AS token, claimed_at, event, error, new_reason AS reason, NULL::interval AS delay
          FROM ended WHERE event IS NOT NULL
          UNION ALL
          SELECT id, token, claimed_at, event, error, reason, delay FROM back WHERE event IS NOT NULL
         ) AS ending
), announced AS (
    SELECT asynctaskd.announce(array_agg(DISTINCT label_set)) FROM back WHERE status = 'pending'
)
SELECT id, pg_current_xact_id()::text FROM written LEFT JOIN announced ON true
