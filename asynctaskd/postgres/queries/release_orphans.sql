-- Put back what a worker holds without knowing: the answer to its claim got lost. Returns how many.
-- $1 worker_id, $2 ids of what it does know, $3 when it knew them: what it claimed since isn't meant
WITH released AS (
    UPDATE asynctaskd.tasks
    SET status = CASE WHEN requested IS NULL THEN 'pending' ELSE 'paused' END, worker_id = NULL, attempts = attempts - 1
    WHERE worker_id = $1 AND id <> ALL ($2::bigint[]) AND claimed_at <= $3
    RETURNING id, claim_token, claimed_at, label_set
), told AS (
    INSERT INTO asynctaskd.task_events (task_id, claim_token, claimed_at, kind, detail)
    SELECT id, claim_token, claimed_at, 'released', '{"reason": "claim got lost"}' FROM released
)
SELECT count(*), asynctaskd.announce(array_agg(DISTINCT label_set)) FROM released
