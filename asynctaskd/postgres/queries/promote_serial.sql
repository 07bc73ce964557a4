-- Let the first of each serial key's line go where nobody of that key is ahead; returns how many did.
-- $1 serial keys, or NULL for all that have a line
--
-- A key whose lock is taken has a newcomer at its head that isn't committed yet: it comes first anyway. What is
-- headless here may not be any more when its lock is held, so `promote_line` looks again.
WITH RECURSIVE lines (serial_key) AS (
    (SELECT serial_key FROM asynctaskd.tasks
     WHERE $1::text[] IS NULL AND serial_key IS NOT NULL AND status = 'waiting' ORDER BY serial_key LIMIT 1)
    UNION ALL
    SELECT (SELECT t.serial_key FROM asynctaskd.tasks AS t
            WHERE t.status = 'waiting' AND t.serial_key IS NOT NULL AND t.serial_key > lines.serial_key
            ORDER BY t.serial_key LIMIT 1)
    FROM lines WHERE lines.serial_key IS NOT NULL
), headless AS MATERIALIZED (
    SELECT key.serial_key
    FROM (SELECT serial_key FROM lines UNION SELECT unnest($1::text[])) AS key
    -- A scalar subquery can't become a join: one index probe a key, whatever the planner believed.
    WHERE key.serial_key IS NOT NULL AND (
        SELECT head.id FROM asynctaskd.tasks AS head
        WHERE head.serial_key = key.serial_key AND head.status IN ('pending', 'scheduled', 'running')
        LIMIT 1) IS NULL
), promoted AS (
    SELECT line.label_set, line.status
    FROM headless CROSS JOIN LATERAL asynctaskd.promote_line(headless.serial_key) AS line
)
SELECT count(*) AS promoted,
       asynctaskd.announce(array_agg(DISTINCT label_set) FILTER (WHERE status = 'pending'))
FROM promoted
