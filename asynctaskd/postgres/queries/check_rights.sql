-- The rights of a worker that the current role lacks, in words.
WITH wanted (object, rights) AS (
    VALUES ('tasks', 'SELECT INSERT UPDATE DELETE'), ('unique_tags', 'SELECT INSERT UPDATE DELETE'),
           ('workers', 'SELECT INSERT UPDATE DELETE'), ('definitions', 'SELECT INSERT UPDATE'),
           ('finished_tasks', 'SELECT INSERT UPDATE'), ('task_events', 'SELECT INSERT DELETE'),
           ('failure_tasks', 'SELECT INSERT DELETE'),
           ('retention', 'SELECT UPDATE'), ('runtime_configs', 'SELECT'),
           ('schedules', 'SELECT INSERT UPDATE'), ('schedule_slots', 'SELECT INSERT DELETE')
)
SELECT granted || ' on ' || object FROM wanted, string_to_table(rights, ' ') AS granted
WHERE NOT has_table_privilege('asynctaskd.' || object, granted)
UNION ALL
SELECT 'USAGE on task_ids' WHERE NOT has_sequence_privilege('asynctaskd.task_ids', 'USAGE')
UNION ALL
-- Only its owner may attach a partition, or detach one: that role, or functions that run with its rights.
SELECT 'membership in ' || rolname || ', the owner of finished_tasks'
FROM pg_class JOIN pg_roles ON pg_roles.oid = relowner
WHERE pg_class.oid = 'asynctaskd.finished_tasks'::regclass AND NOT pg_has_role(pg_roles.oid, 'USAGE')
  AND NOT (SELECT prosecdef AND has_function_privilege(oid, 'EXECUTE') FROM pg_proc
           WHERE oid = 'asynctaskd.ensure_finished_partition'::regproc)
