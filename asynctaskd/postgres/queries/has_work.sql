-- Whether a worker holds anything, or anything is ready that it may run, in either lane.
-- $1 worker_id, $2 the worker's labels, $3 may it run strict tasks?
SELECT EXISTS (SELECT FROM asynctaskd.tasks WHERE worker_id = $1)
    OR EXISTS (SELECT FROM asynctaskd.tasks
               WHERE status = 'pending' AND ($3 OR priority = 0) AND string_to_array(label_set, ',') <@ $2::text[])
