-- Where some tasks stand.
-- $1 ids
SELECT id, status FROM asynctaskd.all_tasks WHERE id = ANY ($1::bigint[])
