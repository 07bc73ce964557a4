-- A worker says whether it waits for work, so that enqueuers know whether to speak.
-- $1 worker_id, $2 idle?
UPDATE asynctaskd.workers SET idle = $2 WHERE id = $1 AND idle IS DISTINCT FROM $2
