-- Resume a schedule; returns whether there is one.
-- $1 name
SELECT asynctaskd.resume_schedule($1)
