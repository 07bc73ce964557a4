-- Wake tasks that waited for a worker to know their name; returns how many.
-- $1 task names, $2 rows at most
--
-- Each name that tasks wait under is looked up once, however many wait: then the index leads to those of known names.
-- Who is woken loses the reason, and so leaves that index: the next batch doesn't walk over it again.
WITH RECURSIVE waiting (name) AS (
    (SELECT name FROM asynctaskd.tasks WHERE reason = 'unknown_name' ORDER BY name LIMIT 1)
    UNION ALL
    SELECT (SELECT next.name FROM asynctaskd.tasks AS next
            WHERE next.reason = 'unknown_name' AND next.name > waiting.name ORDER BY next.name LIMIT 1)
    FROM waiting WHERE waiting.name IS NOT NULL
), woken AS (
    UPDATE asynctaskd.tasks SET run_at = asynctaskd.clock(), reason = NULL
    WHERE id = ANY (ARRAY(
        SELECT id FROM asynctaskd.tasks
        WHERE reason = 'unknown_name'
          AND name = ANY (ARRAY(SELECT waiting.name FROM waiting WHERE asynctaskd.knows($1::text[], waiting.name)))
          AND status = 'scheduled' AND run_at > (SELECT asynctaskd.clock())
        LIMIT $2 FOR UPDATE SKIP LOCKED))
    RETURNING id
)
SELECT count(*) FROM woken
