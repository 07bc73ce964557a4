-- For each of some tasks, the one reason why it isn't running, other than its time.
-- $1 task ids
SELECT id AS task_id, why.reason, why.explanation
FROM unnest($1::bigint[]) AS id CROSS JOIN LATERAL asynctaskd.why(id, true) AS why
