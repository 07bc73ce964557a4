-- Wake tasks that waited for a worker to know their name; returns how many.
-- $1 task names, $2 rows at most
WITH woken AS (
    UPDATE asynctaskd.tasks SET run_at = asynctaskd.clock()
    WHERE id = ANY (ARRAY(
        SELECT id FROM asynctaskd.tasks
        WHERE reason = 'unknown_name' AND asynctaskd.knows($1::text[], name)
          AND status = 'scheduled' AND run_at > (SELECT asynctaskd.clock())
        LIMIT $2 FOR UPDATE SKIP LOCKED))
    RETURNING id
)
SELECT count(*) FROM woken
