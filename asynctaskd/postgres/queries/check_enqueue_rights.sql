-- The rights of an enqueuer that the current role lacks, in words.
WITH entries (oid, name, is_definer) AS (
    SELECT oid, proname, prosecdef FROM pg_proc
    WHERE pronamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'asynctaskd.tasks'::regclass)
      AND proname IN ('enqueue', 'enqueue_many')
), wanted (object, rights) AS (
    VALUES ('tasks', 'SELECT INSERT UPDATE DELETE'), ('unique_tags', 'SELECT INSERT UPDATE DELETE'),
           ('definitions', 'SELECT'), ('workers', 'SELECT'), ('finished_tasks', 'SELECT INSERT'),
           ('task_events', 'SELECT INSERT'), ('dependencies', 'SELECT INSERT DELETE'),
           ('schedules', 'SELECT INSERT UPDATE'), ('trees', 'SELECT UPDATE')
)
SELECT DISTINCT 'EXECUTE on ' || name FROM entries WHERE NOT has_function_privilege(oid, 'EXECUTE')
UNION ALL
-- Functions that run with their caller's rights need all that they touch.
SELECT granted || ' on ' || object FROM wanted, string_to_table(rights, ' ') AS granted
WHERE EXISTS (SELECT FROM entries WHERE NOT is_definer) AND NOT has_table_privilege('asynctaskd.' || object, granted)
UNION ALL
SELECT 'USAGE on task_ids' WHERE EXISTS (SELECT FROM entries WHERE NOT is_definer)
                             AND NOT has_sequence_privilege('asynctaskd.task_ids', 'USAGE')
