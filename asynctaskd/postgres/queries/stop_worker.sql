-- A worker says goodbye; whatever it still holds is found by the next recovery.
-- $1 worker_id
UPDATE asynctaskd.workers SET stopped_at = asynctaskd.clock(), idle = false, running = 0
WHERE id = $1 AND stopped_at IS NULL
