-- The label sets of the normal lane that have something ready and that a worker may run, each with the place
-- (-weight) and id of its first task, by a loose index scan; and without a label set one row if a strict task is
-- ready for whomever (0), and one if a suspect is (1).
-- $1 the worker's labels
WITH RECURSIVE ready AS (
    (SELECT label_set, -weight AS place, id FROM asynctaskd.tasks
     WHERE status = 'pending' AND losses < 2 AND priority = 0 ORDER BY label_set, -weight, id LIMIT 1)
    UNION ALL
    SELECT next.* FROM ready CROSS JOIN LATERAL (
        SELECT t.label_set, -t.weight, t.id FROM asynctaskd.tasks AS t
        WHERE t.status = 'pending' AND t.losses < 2 AND t.priority = 0 AND t.label_set > ready.label_set
        ORDER BY t.label_set, -t.weight, t.id LIMIT 1) AS next
)
SELECT label_set, place, id FROM ready WHERE string_to_array(label_set, ',') <@ $1::text[]
UNION ALL
SELECT NULL, 0, NULL
WHERE (SELECT id FROM asynctaskd.tasks WHERE status = 'pending' AND losses < 2 AND priority > 0 LIMIT 1) IS NOT NULL
UNION ALL
SELECT NULL, 1, NULL
WHERE (SELECT id FROM asynctaskd.tasks WHERE status = 'pending' AND losses >= 2 LIMIT 1) IS NOT NULL
