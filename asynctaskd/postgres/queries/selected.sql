-- How many tasks a command would concern, and the first of them.
-- $1 action, $2 selection (JSON), $3 how many to show, $4 reach descendants?
WITH chosen AS MATERIALIZED (
    SELECT id FROM asynctaskd.selected($2::text::jsonb, $1) AS id
), concerned AS MATERIALIZED (
    SELECT id FROM chosen
    UNION
    SELECT id FROM asynctaskd.tasks
    -- As the command goes about it.
    WHERE $1 IN ('pause', 'cancel', 'resume') AND $4::boolean
      AND id = ANY (asynctaskd.with_descendants(ARRAY(SELECT id FROM chosen)))
      AND ($1 <> 'resume' OR coalesce(requested, status) = 'paused')
)
SELECT (SELECT count(*) FROM concerned), ARRAY(SELECT id FROM concerned ORDER BY id LIMIT $3)
