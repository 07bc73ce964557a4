-- End live tasks past their deadline that aren't running; returns how many.
-- $1 rows at most
SELECT asynctaskd.finish(ARRAY(
    SELECT id FROM asynctaskd.tasks
    WHERE deadline <= (SELECT asynctaskd.clock()) AND status <> 'running'
    ORDER BY deadline LIMIT $1 FOR UPDATE SKIP LOCKED
), 'expired', 'deadline passed')
