-- How many tasks each of some workers holds; no row for one that holds none.
-- $1 their ids
SELECT worker_id, count(*) FROM asynctaskd.tasks WHERE worker_id = ANY ($1::uuid[]) GROUP BY worker_id
