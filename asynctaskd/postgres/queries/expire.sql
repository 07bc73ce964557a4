-- End live tasks past their deadline that aren't running; returns how many were found, and how many the statement has had
-- the time for.
-- $1 rows at most
WITH due AS MATERIALIZED (
    SELECT ARRAY(
        SELECT id FROM asynctaskd.tasks
        WHERE deadline <= (SELECT asynctaskd.clock()) AND status <> 'running'
        ORDER BY deadline LIMIT $1 FOR UPDATE SKIP LOCKED
    ) AS ids
)
SELECT cardinality(ids), asynctaskd.expire(ids) FROM due
