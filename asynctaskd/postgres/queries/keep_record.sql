-- Keep the record of a task that would be deleted when it ends, for its failure task: retention sees to how long.
-- $1 id, $2 claim token, $3 its definition's keep
UPDATE asynctaskd.tasks SET keep = interval '1 second'
WHERE id = $1 AND claim_token = $2 AND coalesce(keep, $3, interval '7 days') = interval '0'
