-- Make the partitions of finished tasks that the days ahead and some tasks need, where they are missing.
-- $1 ids of tasks about to be finalized, $2 their definitions' keep
SELECT asynctaskd.ensure_finished_partition(day)
FROM (
    SELECT (asynctaskd.clock() AT TIME ZONE 'UTC')::date + n AS day FROM generate_series(1, 9) AS n
    UNION
    SELECT asynctaskd.forget_day(asynctaskd.clock(), coalesce(t.keep, own.keep, interval '7 days'))
    FROM unnest($1::bigint[], $2::interval[]) AS own(id, keep)
         LEFT JOIN LATERAL (SELECT keep FROM asynctaskd.tasks WHERE id = own.id LIMIT 1) AS t ON true
) AS needed
ORDER BY day
