-- Those of some live tasks that nobody keeps locked.
-- $1 ids
SELECT id FROM asynctaskd.tasks WHERE id = ANY ($1::bigint[]) FOR UPDATE SKIP LOCKED
