-- The label sets of the normal lane that have something ready and that a worker may run, by a loose index scan.
-- $1 the worker's labels
WITH RECURSIVE ready (label_set) AS (
    (SELECT label_set FROM asynctaskd.tasks
     WHERE status = 'pending' AND losses < 2 AND priority = 0 ORDER BY label_set LIMIT 1)
    UNION ALL
    SELECT (SELECT t.label_set FROM asynctaskd.tasks AS t
            WHERE t.status = 'pending' AND t.losses < 2 AND t.priority = 0 AND t.label_set > ready.label_set
            ORDER BY t.label_set LIMIT 1)
    FROM ready WHERE ready.label_set IS NOT NULL
)
SELECT label_set FROM ready WHERE string_to_array(label_set, ',') <@ $1::text[]
