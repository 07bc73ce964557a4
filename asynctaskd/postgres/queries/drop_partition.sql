-- Drop a table of finished tasks that was detached; whether it was still there.
-- $1 its name
SELECT asynctaskd.drop_detached($1)
