-- The schedules whose next slot has come, or has to be computed, the longest due first; always at least one row.
-- $1 the schedules that this worker declares, $2 rows at most, $3 the names of tasks that it knows
-- Returns with each row the database's time, and of the schedules that this worker sees to the seconds to the next slot
-- to come and the greatest delay.
--
-- A declared schedule is for those who declare it: when nobody does any more, it rests, and nothing waits for it. One of
-- a task with a codec is for those who know the task.
WITH now AS MATERIALIZED (SELECT asynctaskd.clock() AS at), due AS (
    SELECT name, task, expression, zone, params, missed, missed_limit, since, next_at, revision
    FROM asynctaskd.schedules
    WHERE paused_at IS NULL AND coalesce(next_at, '-infinity') <= (SELECT at FROM now)
      AND (declared_hash IS NULL OR name = ANY ($1::text[])) AND asynctaskd.can_write(task, $3::text[])
    ORDER BY coalesce(next_at, '-infinity') LIMIT $2
)
SELECT now.at,
       (SELECT extract(epoch FROM coalesce(next_at, '-infinity') - at)::float8 FROM asynctaskd.schedules
        WHERE paused_at IS NULL AND coalesce(next_at, '-infinity') > at AND next_at < 'infinity'
          AND (declared_hash IS NULL OR name = ANY ($1)) AND asynctaskd.can_write(task, $3)
        ORDER BY coalesce(next_at, '-infinity') LIMIT 1) AS next_in,
       (SELECT extract(epoch FROM at - coalesce(next_at, '-infinity'))::float8 FROM asynctaskd.schedules
        WHERE paused_at IS NULL AND coalesce(next_at, '-infinity') > '-infinity'
          AND coalesce(next_at, '-infinity') <= at
          AND (declared_hash IS NULL OR name = ANY ($1)) AND asynctaskd.can_write(task, $3)
        ORDER BY coalesce(next_at, '-infinity') LIMIT 1) AS lag,
       due.*
FROM now LEFT JOIN due ON true
