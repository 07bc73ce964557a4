-- Enqueue a task of a schedule at once, beside its slots; returns its id, NULL where there is no such schedule.
-- $1 name
SELECT asynctaskd.run_schedule($1)
