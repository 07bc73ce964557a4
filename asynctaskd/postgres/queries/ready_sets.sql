-- A look from the start, in rows of a kind each, by loose index scans:
-- 0: a label set of the normal lane that has something ready and that a worker may run, with the place (-weight) and
--    id of its first task; 1: one of the strict lane, whoever may run it, with the place (-priority) and id;
-- 2: a label set of the first suspects that are ready; 3: how many label sets were looked at, and the newest id that was given to a task;
-- 4: how many microseconds all of that took.
-- $1 the worker's labels
WITH RECURSIVE normal AS (
    (SELECT label_set, -weight AS place, id FROM asynctaskd.tasks
     WHERE status = 'pending' AND losses < 2 AND priority = 0 ORDER BY label_set, -weight, id LIMIT 1)
    UNION ALL
    SELECT next.* FROM normal CROSS JOIN LATERAL (
        SELECT t.label_set, -t.weight, t.id FROM asynctaskd.tasks AS t
        WHERE t.status = 'pending' AND t.losses < 2 AND t.priority = 0 AND t.label_set > normal.label_set
        ORDER BY t.label_set, -t.weight, t.id LIMIT 1) AS next
), strict AS (
    (SELECT label_set, -priority AS place, id FROM asynctaskd.tasks
     WHERE status = 'pending' AND losses < 2 AND priority > 0 ORDER BY label_set, -priority, id LIMIT 1)
    UNION ALL
    SELECT next.* FROM strict CROSS JOIN LATERAL (
        SELECT t.label_set, -t.priority, t.id FROM asynctaskd.tasks AS t
        WHERE t.status = 'pending' AND t.losses < 2 AND t.priority > 0 AND t.label_set > strict.label_set
        ORDER BY t.label_set, -t.priority, t.id LIMIT 1) AS next
)
SELECT 0, label_set, place, id FROM normal WHERE string_to_array(label_set, ',') <@ $1::text[]
UNION ALL
SELECT 1, label_set, place, id FROM strict
UNION ALL
SELECT DISTINCT 2, label_set, 0, 0
FROM (SELECT label_set FROM asynctaskd.tasks WHERE status = 'pending' AND losses >= 2 ORDER BY id LIMIT 100) AS suspects
UNION ALL
SELECT 3, '', (SELECT count(*) FROM normal) + (SELECT count(*) FROM strict),
       coalesce(pg_sequence_last_value('asynctaskd.task_ids'), 0)
UNION ALL
SELECT 4, '', 0, (extract(epoch FROM clock_timestamp() - statement_timestamp()) * 1000000)::bigint
