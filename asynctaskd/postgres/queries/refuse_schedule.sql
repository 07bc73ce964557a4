-- Pause a schedule that can't be read, unless it was changed meanwhile; returns whether it was paused.
-- $1 schedule, $2 the reason, $3 the revision that the caller saw
SELECT asynctaskd.pause_schedule($1, $2, $3)
