-- Of claims that finalize found gone: record those that were taken from their worker as stale, and return their ids.
-- The others were written before, by a finalize whose answer got lost.
-- $1 ids, $2 claim tokens, $3 the statuses that were not written
INSERT INTO asynctaskd.task_events (task_id, claim_token, kind, detail)
SELECT asked.id, asked.token, 'stale_result', jsonb_build_object('status', asked.status)
FROM unnest($1::bigint[], $2::bigint[], $3::text[]) AS asked(id, token, status)
WHERE (SELECT max(CASE kind WHEN 'lease_lost' THEN 1 WHEN 'stale_result' THEN 2 ELSE 0 END)
       FROM asynctaskd.task_events
       WHERE task_id = asked.id AND claim_token = asked.token) = 1
RETURNING task_id
