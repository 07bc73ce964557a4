-- Change priority or weight of tasks that don't run, by their labels; returns how many.
-- $1 any of these labels (none: only those without labels), $2 priority, $3 weight; NULL leaves it
SELECT asynctaskd.reprioritize($1, $2, $3)
