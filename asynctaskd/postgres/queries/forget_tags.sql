-- Free unique tags of tasks whose record is forgotten; returns how many.
-- $1 rows at most
WITH freed AS (
    DELETE FROM asynctaskd.unique_tags WHERE tag = ANY (ARRAY(
        SELECT tag FROM asynctaskd.unique_tags
        WHERE forget_on <= (SELECT (asynctaskd.clock() AT TIME ZONE 'UTC')::date)
        ORDER BY forget_on LIMIT $1 FOR UPDATE SKIP LOCKED))
    RETURNING tag
)
SELECT count(*) FROM freed
