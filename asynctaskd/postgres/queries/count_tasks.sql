-- How many tasks there are, by status: a number, and whether it is an estimate (JSON).
-- $1 how far to count
SELECT asynctaskd.count_tasks($1)::text
