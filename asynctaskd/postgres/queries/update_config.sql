-- Ask for a change of the runtime configuration; returns the id of its control task.
-- $1 the changes (JSON), $2 how long it may take to converge
SELECT asynctaskd.update_runtime_config($1::text::jsonb, $2)
