-- The workers of a process that didn't say goodbye.
-- $1 process
SELECT id FROM asynctaskd.workers WHERE process = $1 AND stopped_at IS NULL
