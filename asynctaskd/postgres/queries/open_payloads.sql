-- The payloads of tasks that aren't at their end, in the order of their ids; those of the daemon's own are left out.
-- $1 only tasks with a larger id, $2 rows at most
SELECT id, name, payload::text FROM asynctaskd.tasks
WHERE id > $1 AND label_set <> '!control'
ORDER BY id LIMIT $2
