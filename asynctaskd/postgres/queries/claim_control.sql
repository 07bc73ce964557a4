-- Claim control tasks for a worker whose lease holds, suspects among them too: they take no slot.
-- $1 worker_id, $2 tasks at most, $3 those that this worker hasn't let go of
UPDATE asynctaskd.tasks AS t
SET status = 'running', worker_id = $1, claim_token = t.claim_token + 1, claimed_at = (SELECT asynctaskd.clock()),
    attempts = t.attempts + 1
WHERE t.id = ANY (ARRAY(
    SELECT id FROM (
        SELECT id FROM asynctaskd.tasks
        WHERE status = 'pending' AND losses < 2 AND priority > 0 AND label_set = '!control'
          AND id <> ALL ($3::bigint[])
        ORDER BY -priority, id LIMIT $2 FOR UPDATE SKIP LOCKED) AS ready
    UNION ALL
    SELECT id FROM (
        SELECT id FROM asynctaskd.tasks
        WHERE status = 'pending' AND losses >= 2 AND label_set = '!control' AND id <> ALL ($3::bigint[])
        ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED) AS suspect
))
  AND (SELECT asynctaskd.is_live(w) FROM asynctaskd.workers AS w WHERE w.id = $1)
RETURNING t.id, t.claim_token, t.name, t.payload, t.label_set, t.priority, t.weight, t.attempts, t.failures,
          t.losses, t.max_attempts, t.timeout, t.retry, t.deadline, t.claimed_at, t.created_at, t.serial_key,
          t.unique_tag, t.reason, date_part('epoch', t.claimed_at - greatest(t.created_at, t.run_at)), NULL, NULL
