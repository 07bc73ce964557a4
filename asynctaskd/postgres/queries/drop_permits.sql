-- Delete a worker's permits.
-- $1 worker_id, $2 labels whose permits stay
DELETE FROM asynctaskd.label_permits WHERE worker_id = $1 AND label <> ALL ($2::text[])
