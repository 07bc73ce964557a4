-- A worker says goodbye; whatever it still holds is found by the next recovery, and its permits stay until then.
-- $1 worker_id
WITH given_back AS (
    DELETE FROM asynctaskd.label_permits
    WHERE worker_id = $1 AND NOT EXISTS (SELECT FROM asynctaskd.tasks AS t WHERE t.worker_id = $1)
)
UPDATE asynctaskd.workers SET stopped_at = asynctaskd.clock(), idle = false, running = 0
WHERE id = $1 AND stopped_at IS NULL
