-- Whether a worker holds anything, or anything is ready that it may run, or a serial key's line is about to move.
-- By loose index scans: what is ready for others isn't read.
-- $1 worker_id, $2 the worker's labels, $3 may it run strict tasks?, $4 labels and $5 names that are paused
WITH RECURSIVE normal (label_set) AS (
    (SELECT label_set FROM asynctaskd.tasks
     WHERE status = 'pending' AND losses < 2 AND priority = 0 ORDER BY label_set LIMIT 1)
    UNION ALL
    SELECT (SELECT t.label_set FROM asynctaskd.tasks AS t
            WHERE t.status = 'pending' AND t.losses < 2 AND t.priority = 0 AND t.label_set > normal.label_set
            ORDER BY t.label_set LIMIT 1)
    FROM normal WHERE normal.label_set IS NOT NULL
), strict (label_set) AS (
    (SELECT label_set FROM asynctaskd.tasks
     WHERE $3 AND status = 'pending' AND losses < 2 AND priority > 0 ORDER BY label_set LIMIT 1)
    UNION ALL
    SELECT (SELECT t.label_set FROM asynctaskd.tasks AS t
            WHERE t.status = 'pending' AND t.losses < 2 AND t.priority > 0 AND t.label_set > strict.label_set
            ORDER BY t.label_set LIMIT 1)
    FROM strict WHERE strict.label_set IS NOT NULL
), lines (serial_key) AS (
    (SELECT serial_key FROM asynctaskd.tasks
     WHERE serial_key IS NOT NULL AND status = 'waiting' ORDER BY serial_key LIMIT 1)
    UNION ALL
    SELECT (SELECT t.serial_key FROM asynctaskd.tasks AS t
            WHERE t.status = 'waiting' AND t.serial_key IS NOT NULL AND t.serial_key > lines.serial_key
            ORDER BY t.serial_key LIMIT 1)
    FROM lines WHERE lines.serial_key IS NOT NULL
)
SELECT EXISTS (SELECT FROM asynctaskd.tasks WHERE worker_id = $1)
    OR EXISTS (SELECT FROM normal
               WHERE string_to_array(label_set, ',') <@ $2::text[] AND NOT string_to_array(label_set, ',') && $4::text[])
    OR EXISTS (SELECT FROM strict
               WHERE string_to_array(label_set, ',') <@ $2::text[] AND NOT string_to_array(label_set, ',') && $4::text[])
    OR EXISTS (SELECT FROM asynctaskd.tasks
               WHERE status = 'pending' AND losses >= 2 AND ($3 OR priority = 0)
                 AND string_to_array(label_set, ',') <@ $2::text[] AND NOT string_to_array(label_set, ',') && $4::text[]
                 AND name <> ALL ($5::text[]))
    OR EXISTS (SELECT FROM lines WHERE serial_key IS NOT NULL AND (
                   SELECT head.id FROM asynctaskd.tasks AS head
                   WHERE head.serial_key = lines.serial_key AND head.status IN ('pending', 'scheduled', 'running')
                   LIMIT 1) IS NULL
               AND (
                   SELECT next.id FROM asynctaskd.tasks AS next
                   WHERE next.serial_key = lines.serial_key AND next.status = 'waiting'
                     AND NOT asynctaskd.depends(next.id)
                   LIMIT 1) IS NOT NULL)
