-- Whether a worker holds anything, or anything is ready that it may run, or a serial key's line is about to move.
-- $1 worker_id, $2 the worker's labels, $3 may it run strict tasks?
SELECT EXISTS (SELECT FROM asynctaskd.tasks WHERE worker_id = $1)
    OR EXISTS (SELECT FROM asynctaskd.tasks
               WHERE status = 'pending' AND priority = 0 AND string_to_array(label_set, ',') <@ $2::text[])
    OR $3 AND EXISTS (SELECT FROM asynctaskd.tasks
                      WHERE status = 'pending' AND priority > 0 AND string_to_array(label_set, ',') <@ $2::text[])
    OR EXISTS (SELECT FROM asynctaskd.tasks AS first
               WHERE first.status = 'waiting' AND first.serial_key IS NOT NULL AND (
                   SELECT head.id FROM asynctaskd.tasks AS head
                   WHERE head.serial_key = first.serial_key AND head.status IN ('pending', 'scheduled', 'running')
                   LIMIT 1) IS NULL)
