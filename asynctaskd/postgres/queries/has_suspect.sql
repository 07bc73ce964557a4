-- Whether a suspect is ready that a worker may run: a task that has lost its worker twice in a row.
-- $1 the worker's labels, $2 may it run strict tasks?
SELECT EXISTS (SELECT FROM asynctaskd.tasks
               WHERE status = 'pending' AND losses >= 2 AND ($2 OR priority = 0)
                 AND string_to_array(label_set, ',') <@ $1::text[])
