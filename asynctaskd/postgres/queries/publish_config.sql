-- Write the version of the runtime configuration that a control task asks for, unless it has done so before.
-- $1 the task's id, $2 its payload
SELECT version, identity, reach, canary_worker
FROM asynctaskd.publish_runtime_config(
    $2::text::jsonb, asynctaskd.config_request($1),
    (SELECT metadata ->> 'created_by' FROM asynctaskd.tasks WHERE id = $1))
