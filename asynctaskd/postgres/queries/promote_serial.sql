-- Let the first of each serial key's line go where nobody of that key is ahead; returns how many did.
-- $1 serial keys, or NULL for all that have a line
--
-- A key whose lock is taken has a newcomer at its head that isn't committed yet: it comes first anyway.
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
    WHERE key.serial_key IS NOT NULL AND NOT EXISTS (
        SELECT FROM asynctaskd.tasks AS head
        WHERE head.serial_key = key.serial_key AND head.status IN ('pending', 'scheduled', 'running'))
), locked AS MATERIALIZED (
    SELECT serial_key FROM headless
    WHERE pg_try_advisory_xact_lock(hashtext('asynctaskd.serial_key'), hashtext(serial_key))
), promoted AS (
    UPDATE asynctaskd.tasks
    SET status = CASE WHEN run_at > asynctaskd.clock() THEN 'scheduled' ELSE 'pending' END
    WHERE id = ANY (ARRAY(
        SELECT first.id FROM locked CROSS JOIN LATERAL (
            SELECT t.id FROM asynctaskd.tasks AS t
            WHERE t.serial_key = locked.serial_key AND t.status = 'waiting'
            ORDER BY t.serial_id, t.id LIMIT 1 FOR UPDATE SKIP LOCKED
        ) AS first))
    RETURNING label_set, status
)
SELECT count(*) AS promoted,
       asynctaskd.announce(array_agg(DISTINCT label_set) FILTER (WHERE status = 'pending'))
FROM promoted
