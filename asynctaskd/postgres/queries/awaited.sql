-- Tasks that others depend on, in the order of their ids, and whether each has ended.
-- $1 after which id, $2 how many at most
WITH RECURSIVE awaited (id) AS (
    (SELECT depends_on FROM asynctaskd.dependencies WHERE depends_on > $1 ORDER BY depends_on LIMIT 1)
    UNION ALL
    SELECT (SELECT d.depends_on FROM asynctaskd.dependencies AS d
            WHERE d.depends_on > awaited.id ORDER BY d.depends_on LIMIT 1)
    FROM awaited WHERE awaited.id IS NOT NULL
)
SELECT id, (SELECT t.id FROM asynctaskd.tasks AS t WHERE t.id = awaited.id) IS NULL AS has_ended
FROM awaited WHERE id IS NOT NULL LIMIT $2
