-- Enqueue the failure task of a task, unless that is one itself.
-- $1 the failed task, $2 name, $3 payload
SELECT asynctaskd.enqueue_failure_task($1, $2, $3::text::jsonb)
