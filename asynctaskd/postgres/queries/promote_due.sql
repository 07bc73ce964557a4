-- Make scheduled tasks whose time has come claimable; returns how many, and when the next one is due.
-- $1 rows at most
WITH due AS (
    SELECT id FROM asynctaskd.tasks
    WHERE status = 'scheduled' AND run_at <= (SELECT asynctaskd.clock())
    ORDER BY run_at LIMIT $1 FOR UPDATE SKIP LOCKED
), promoted AS (
    UPDATE asynctaskd.tasks SET status = 'pending' WHERE id = ANY (ARRAY(SELECT id FROM due))
    RETURNING label_set
), announced AS (
    SELECT count(*) AS promoted, asynctaskd.announce(array_agg(DISTINCT label_set)) FROM promoted
)
SELECT promoted, (SELECT min(run_at) - asynctaskd.clock() FROM asynctaskd.tasks
                  WHERE status = 'scheduled' AND run_at > (SELECT asynctaskd.clock())) AS next_in
FROM announced
