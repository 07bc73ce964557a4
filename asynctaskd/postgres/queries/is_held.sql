-- Whether any of some workers holds a task.
-- $1 their ids
SELECT EXISTS (SELECT FROM asynctaskd.tasks WHERE worker_id = ANY ($1::uuid[]))
