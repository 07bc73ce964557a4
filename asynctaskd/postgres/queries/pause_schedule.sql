-- Pause a schedule; returns whether there is one.
-- $1 name
SELECT asynctaskd.pause_schedule($1)
