-- Tell watchers what a worker has claimed and completed.
-- $1 messages
SELECT pg_notify('asynctaskd_task_events', message) FROM unnest($1::text[]) AS message
