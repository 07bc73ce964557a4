-- Remove a schedule; returns whether there was one.
-- $1 name
SELECT asynctaskd.remove_schedule($1)
