-- Whom a task is related to: ancestors, children, what it depends on and what depends on it.
-- $1 task id, $2 rows at most of each, $3 how many finished records to look at for children
SELECT relation, id, name, status FROM asynctaskd.relatives($1, $2, $3)
